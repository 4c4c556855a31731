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
IMPORT = "python -m common.store.import_elasticsearch"


def import_index(command: str, stack: Any) -> None:
    """Run the import from an index with one image, into the store of the stack."""
    with Image.open(ROOT / "examples" / "images" / "moose.jpg") as image:
        documents = [document("http://192.0.2.1/moose.jpg", np.asarray(image.convert("RGB")))]
    with serving_index(ImageMatchIndex(documents)) as index:
        _, *arguments = command.replace(OLD_INDEX, index.url).split()
        environment = {
            "MATCH_STORE_URL": f"sqlite:///{stack.home / 'match.db'}",
            "MATCH_HOME": str(stack.home),
            "PYTHONPATH": str(ROOT),
        }
        subprocess.run([sys.executable, *arguments], env=os.environ | environment, check=True, timeout=90)


def test_the_commands_of_the_guides_work(stack: Any, match: MatchCommand, image_server: str) -> None:
    Path("examples/images").mkdir(parents=True)
    for name in ("brick.jpg", "coffee.jpg"):
        shutil.copy(ROOT / "examples" / "images" / name, "examples/images")
    rows = [{"url": f"{image_server}/{name}.jpg", "filepath": name} for name in ("coffee", "rocket")]
    Path("urls.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    for line in (line for block in blocks("guides.md", "sh") for line in block.splitlines()):
        if line.startswith(IMPORT):
            import_index(line, stack)
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
