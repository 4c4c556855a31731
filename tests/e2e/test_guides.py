"""The commands of the guides, against a real stack."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

from dev.proxy import Proxy, why_not
from match_cli.exits import Exit
from support.image_match_index import ImageMatchIndex, document, serving_index
from support.match_command import ROOT, MatchCommand, blocks
from support.service import Service

# The stack of these tests runs it.
MAKE_DEV = "make dev"
OLD_INDEX = "http://old:9200"
# The proxy of the test stands for it.
REMOTE = "match --url https://match.example.org"
PYTHON = "python -m common.store."


def run_python(command: str, stack: Any, old_url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the service with the store of the stack; `old_url` stands for the old index server."""
    words = command.replace(OLD_INDEX, old_url).split()
    arguments = words[words.index("-m") :]
    settings = {
        "REDIS_URL": (stack.home / "redis" / "url").read_text().strip(),
        "MATCH_STORE_URL": f"sqlite:///{stack.home / 'match.db'}",
        "MATCH_HOME": str(stack.home),
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | settings | environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=90,
    )


def old_document(name: str, path: str, **fields: Any) -> dict[str, Any]:
    """Return the document of an example image in an old index."""
    with Image.open(ROOT / "examples" / "images" / name) as image:
        return document(path, np.asarray(image.convert("RGB")), **fields)


def test_the_commands_of_the_guides_work(stack: Any, match: MatchCommand, image_server: str) -> None:
    Path("examples/images").mkdir(parents=True)
    for name in ("brick.jpg", "coffee.jpg"):
        shutil.copy(ROOT / "examples" / "images" / name, "examples/images")
    rows = [{"url": f"{image_server}/{name}.jpg", "filepath": name} for name in ("coffee", "rocket")]
    Path("urls.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    with serving_index(ImageMatchIndex([old_document("moose.jpg", "http://192.0.2.1/moose.jpg")])) as index:
        for line in (line for block in blocks("guides.md", "sh") for line in block.splitlines()):
            if PYTHON in line:
                run_python(line, stack, index.url)
            elif not line.endswith(MAKE_DEV) and not line.startswith(REMOTE):
                match.run(line)

    names = stack.ok("GET", "/list", params={"limit": "1000"})
    assert {"coffee", "rocket", str(match.home / "Photos" / "coffee.jpg"), "http://192.0.2.1/moose.jpg"} <= set(names)
    matches = stack.search((ROOT / "examples" / "images" / "moose.jpg").read_bytes())
    assert "http://192.0.2.1/moose.jpg" in {result["filepath"] for result in matches}


def test_the_commands_behind_a_proxy_work(
    stack: Any, match: MatchCommand, tmp_path: Path, give_up: Callable[[str], NoReturn]
) -> None:
    if reason := why_not():
        give_up(reason)
    lines = [line for block in blocks("guides.md", "sh") for line in block.splitlines()]
    keys = [match.run(line).out.strip() for line in lines if line.startswith("match keys add")]
    environment = {
        "REDIS_URL": (stack.home / "redis" / "url").read_text().strip(),
        "MATCH_STORE_URL": f"sqlite:///{stack.home / 'match.db'}",
        "MATCH_API_KEYS_FILE": str(Path("keys.toml").resolve()),
        "MATCH_API_HOST": "127.0.0.1",
        "WORKER_COUNT": "1",
    }

    with Service(tmp_path, environment) as service:
        port = int(service.start_api().rpartition(":")[2])
        with Proxy(tmp_path / "proxy", [port], with_keys=True) as proxy:
            remote = [line.replace(REMOTE, f"match --url {proxy.url}") for line in lines if line.startswith(REMOTE)]
            reader, importer, *_ = (replace(match, api_key=key) for key in keys)
            results = [importer.run(line) for line in remote]
            rejected = reader("--url", proxy.url, "add", "rocket.jpg")
            keyless = match("--url", proxy.url, "status")

    assert results[0].out.startswith(f"{proxy.url}: ready\nimages: ")
    assert str(match.home / "Photos" / "coffee.jpg") in results[-1].out
    assert (rejected.code, keyless.code) == (Exit.REJECTED, Exit.REJECTED)
    assert "missing_scope" in rejected.err


def test_the_commands_that_move_images_work(stack: Any, match: MatchCommand, image_server: str) -> None:
    url = f"{image_server}/chelsea.jpg"
    old = [
        old_document("chelsea.jpg", url, metadata={"album": "cats"}),
        old_document("coffee.jpg", "photos/coffee.jpg", number=1),
    ]
    lines = [line for block in blocks("migrating-from-dsys-match.md", "sh") for line in block.splitlines()]
    # Those for containers and Kubernetes are checked in tests/manifests.
    moving = [line for line in lines if line.startswith(("match ", PYTHON))]

    with serving_index(ImageMatchIndex(old)) as index:
        outputs = [
            run_python(line, stack, index.url, MATCH_FETCH_ALLOW=image_server.removeprefix("http://")).stderr
            if line.startswith(PYTHON)
            else match.run(line).out
            for line in moving
        ]

    images = {path: stack.ok("GET", "/images", params={"filepath": path})[0] for path in (url, "photos/coffee.jpg")}
    assert "match import: 2 stored\n" in outputs[0]
    assert "images: " in outputs[1]
    assert all(image["width"] > 0 for image in images.values())
    assert images[url]["metadata"] == {"album": "cats"}


@pytest.mark.usefixtures("match")
def test_the_guide_keeps_duplicates_out(stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    [block] = blocks("guides.md", "python")

    exec(block.replace("http://127.0.0.1:8888", stack.url), {})  # noqa: S102 - the page's own example

    assert capsys.readouterr().out.splitlines() == [
        "coffee.jpg → uploads/coffee.jpg",
        "rocket.jpg → uploads/rocket.jpg",
        "coffee.jpg → uploads/coffee.jpg",
    ]
    assert sorted(stack.ok("GET", "/list")) == ["uploads/coffee.jpg", "uploads/rocket.jpg"]
