"""Every command of the README and of docs/install.md: run against a real stack, or listed with the reason why not."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.pages import DOCUMENTED_URL, Block, clone_of_links, code_blocks, run_block

DOCKER = "needs Docker: tests/manifests checks the compose file, the Dockerfiles and the overlays without it"
CLUSTER = "needs a cluster: tests/cluster applies the overlays to a real control plane"
# The first line of each block that is not run, with the reason.
NOT_RUN = {
    "make dev": "the stack of these tests is its recipe; tests/acceptance/test_install.py runs it on a fresh clone",
    "make test    # the tests that this machine can run; lists skipped ones with the reason": "these tests",
    "(umask 077; printf '%s\\n' \"REDIS_PASSWORD": DOCKER,
    "docker compose run ": DOCKER,
    "make push ": DOCKER,
    "kubectl kustomize ../match-deploy": "tests/manifests/test_example.py renders the example",
    "kubectl create namespace match": CLUSTER,
    "make k8s-rollout ": CLUSTER,
}
PAGES = ("README.md", "docs/install.md")


def is_run(block: Block) -> bool:
    return not any(block.first.startswith(first) for first in NOT_RUN)


@pytest.fixture
def clone(stack: Any, tmp_path: Path, photographs: dict[str, bytes]) -> Path:
    """A clone in which `make dev` runs, and a home with photographs."""
    home = tmp_path / "home"
    for folder, name in (("Photos", "coffee.jpg"), ("Scans", "moose.jpg")):
        (home / folder).mkdir(parents=True)
        (home / folder / name).write_bytes(photographs[name])
    clone = clone_of_links(tmp_path, data=stack.home)
    (clone / "cropped.jpg").write_bytes(photographs["coffee.jpg"])
    return clone


Run = Callable[[str], str]


@pytest.fixture
def run(stack: Any, clone: Path, tmp_path: Path) -> Run:
    """Run a block in the clone, as a reader does."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in (("match", "-m match_cli"), ("make", "examples/demo.py")):
        # `make demo` without the check of the environment, which is shared between worktrees.
        (programs / name).write_text(f'#!/bin/sh\n[ "$1" = demo ] && shift\nexec {sys.executable} {command} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{clone}:{clone / 'client'}",
        "MATCH_URL": stack.url,
        "PORT": stack.url.rpartition(":")[2],
        "MATCH_HOME": str(stack.home),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    return lambda text: run_block(text, folder=clone, url=stack.url, environment=environment)


def replies(output: str) -> Iterator[Mapping[str, Any]]:
    """Yield the replies of the API in the output of curl, in which they follow each other."""
    decoder = json.JSONDecoder()
    position = 0
    while match := re.compile(r"\{").search(output, position):
        reply, position = decoder.raw_decode(output, match.start())
        yield reply


def test_every_block_that_is_not_run_has_a_reason() -> None:
    blocks = [block for page in PAGES for block in code_blocks(page) if block.language == "sh"]

    unused = [first for first in NOT_RUN if not any(block.first.startswith(first) for block in blocks)]

    assert sum(map(is_run, blocks)) > 8
    assert unused == []


def test_the_commands_of_the_readme_work(
    stack: Any, run: Run, clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = code_blocks("README.md")
    [python] = [block.text for block in blocks if block.language == "python"]
    [documented] = [json.loads(block.text) for block in blocks if block.language == "json"]

    outputs = {block.first: run(block.text) for block in blocks if block.language == "sh" and is_run(block)}
    monkeypatch.chdir(clone)
    exec(python.replace(DOCUMENTED_URL, stack.url), {})  # noqa: S102 - the page's own example

    [curl] = [output for first, output in outputs.items() if first.startswith("curl")]
    _, search = replies(curl)
    assert search == nearly(documented)
    assert search["result"][0]["score"] == pytest.approx(documented["result"][0]["score"], abs=2)
    assert capsys.readouterr().out == "cats/chelsea.jpg\n"


def nearly(reply: Any) -> Any:
    """Return a reply that equals those with almost the same numbers, because decoders differ between versions."""
    if isinstance(reply, dict):
        return {key: nearly(value) for key, value in reply.items()}
    if isinstance(reply, list):
        return [nearly(value) for value in reply]
    return pytest.approx(reply, abs=8) if isinstance(reply, float) else reply


def test_the_commands_of_the_installation_work(run: Run, clone: Path) -> None:
    blocks = [block for block in code_blocks("docs/install.md") if block.language in {"sh", "json"}]
    [ready] = [json.loads(block.text) for block in blocks if block.language == "json"]
    key, variables = "", ""
    received: list[Mapping[str, Any]] = []

    for block in (block for block in blocks if block.language == "sh" and is_run(block)):
        text = block.text.replace("KEY=match_…", f"KEY={key}")
        output = run(variables + text)
        key = next(iter(re.findall(r"match_[\w-]{20,}", output)), key)
        variables += text if "ask()" in text else ""
        received += replies(output)

    [first, second, added, searched, counted, deleted] = received
    assert first == second == ready
    assert added["task"]["state"] == "succeeded"
    assert searched["result"][0].items() >= {"score": 100.0, "filepath": "first/chelsea.jpg"}.items()
    assert (counted["result"], deleted["status"]) == ([1], "ok")
    assert key
    assert "[[keys]]" in (clone / "keys.toml").read_text()
    assert (clone.parent / "match-deploy" / "kustomization.yaml").is_file()
