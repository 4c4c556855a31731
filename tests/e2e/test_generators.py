"""Clients that generators make of the service's description, used against the service.

`MATCH_CLIENTS=all` (`make acceptance`) runs all generators; without it, only the quick ones are run.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import requests

from support.generators import GENERATORS, QUICK, Generator, Missing, run, spectral

ALL = os.environ.get("MATCH_CLIENTS") == "all"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "images"
# Of a program of each generator: it adds, follows a task and a batch, searches, fails and deletes.
ANSWERS = {
    "states": ["succeeded", "succeeded"],
    "outcomes": ["ok", "ok"],
    "batch": ["ended", 2],
    "by_file": ["file"],
    "by_url": ["url"],
    "by_filepath": ["file"],
    "in_another_album": [],
    "code": "unknown_filepath",
    "count": 1,
    "list": ["file"],
}


@pytest.fixture
def description(stack: Any, tmp_path: Path) -> Path:
    """The service's description, in a file as generators read it."""
    file = tmp_path / "openapi.json"
    file.write_bytes(requests.get(f"{stack.url}/openapi.json", timeout=30).content)
    return file


@pytest.mark.parametrize("generator", GENERATORS if ALL else QUICK, ids=lambda generator: generator.name)
def test_generated_client_compiles_and_uses_the_service(
    generator: Generator,
    description: Path,
    stack: Any,
    image_server: str,
    tmp_path: Path,
    give_up: Callable[[str], NoReturn],
) -> None:
    folder = tmp_path / "client"
    folder.mkdir()
    try:
        command = generator.make(description, folder)
    except Missing as missing:
        give_up(str(missing))
    files = [str(EXAMPLES)] if generator.has_files else []

    output = run([*command, stack.url, generator.name, *files, image_server], folder)

    assert json.loads(output) == ANSWERS
    assert stack.ok("GET", "/list", params={"collection": generator.name}) == ["file", "url"]


@pytest.mark.skipif(not ALL, reason="make acceptance runs Spectral")
def test_spectral_finds_no_error(description: Path, tmp_path: Path, give_up: Callable[[str], NoReturn]) -> None:
    try:
        report = spectral(description, tmp_path)
    except Missing as missing:
        give_up(str(missing))

    assert "(0 errors," in report or "No results" in report
