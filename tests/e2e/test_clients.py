"""The code of docs/clients.md, run against a service: each language prints what the page shows.

`MATCH_CLIENTS=all` (`make acceptance`) also runs the code in Go, whose first build takes long.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dev.go_builds import find_go

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text()
ORIGIN = "http://127.0.0.1:8888"
IMAGES_AT = "https://images.example.org"
# The languages of the blocks: Python with match_client, and with requests.
LANGUAGES = ("sh", "python", "py", "js", "go")
ALL = os.environ.get("MATCH_CLIENTS") == "all"
WITHIN_S = 240
# Between the outputs of two blocks in the shell, which prints whole replies.
END = "-- end of a block --"


def sections() -> list[dict[str, str]]:
    """Return the blocks of each section by language, where "text" is what they print; the first has no output."""
    parts = [dict(re.findall(r"^```(\w+)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)) for part in PAGE.split("\n## ")]
    return [part for part in parts if part]


def program(language: str) -> str:
    """Return the program that the blocks of a language are."""
    first, *others = [section[language] for section in sections()]
    if language == "go":
        return first + "func main() {\n" + "".join(f"{{\n{block}}}\n" for block in others) + "}\n"
    return first + "".join(f"{block}\necho '{END}'\n" if language == "sh" else block for block in others)


def command(language: str, folder: Path, source: str, give_up: Callable[[str], NoReturn]) -> list[str]:
    """Return the command that runs the program."""
    file = folder / f"program.{'mjs' if language == 'js' else language}"
    file.write_text(source)
    if language == "sh":
        return ["bash", "-eu", str(file)]
    if language in {"python", "py"}:
        return [sys.executable, "-W", "error", str(file)]
    runner = shutil.which("node") if language == "js" else find_go()
    if runner is None:
        give_up(f"docs/clients.md needs {'Node.js' if language == 'js' else 'Go'}")
    return [runner, str(file)] if language == "js" else [runner, "run", str(file)]


@pytest.mark.parametrize("language", [one for one in LANGUAGES if ALL or one != "go"])
def test_the_code_prints_what_the_page_shows(
    language: str, stack: Any, image_server: str, tmp_path: Path, give_up: Callable[[str], NoReturn]
) -> None:
    for name in ("chelsea.jpg", "coffee.jpg"):
        shutil.copy(ROOT / "examples" / "images" / name, tmp_path)
    source = program(language).replace(ORIGIN, stack.url).replace(IMAGES_AT, image_server)

    result = subprocess.run(
        command(language, tmp_path, source, give_up),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "client")},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    expected = [section["text"].splitlines() for section in sections()[1:]]
    if language == "sh":
        replies = result.stdout.split(END)[:-1]
        assert [all(line in reply for line in lines) for lines, reply in zip(expected, replies, strict=True)] == [
            True
        ] * len(expected)
    else:
        assert result.stdout.splitlines() == [line for lines in expected for line in lines]


def test_every_section_has_every_language() -> None:
    first, *others = sections()

    assert first.keys() == {*LANGUAGES}
    assert [section.keys() for section in others] == [{*LANGUAGES, "text"}] * 10
    assert ORIGIN in first["go"]
