"""The program `match` as a whole: its options, exit codes, completion and page."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from match_cli.__main__ import app
from match_cli.exits import Exit

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "command-line.md").read_text()
# It runs until Ctrl-C.
WITHOUT_JSON = {("serve",)}
SECRET = re.compile(r"key|secret|token|password|authorization")
WITHIN_S = 60


def commands(group: Any, *names: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield the names of each command with its options and arguments."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), [option for parameter in command.params for option in parameter.opts]


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("names", sorted(COMMANDS.keys() - WITHOUT_JSON), ids=" ".join)
def test_each_command_prints_json(names: tuple[str, ...]) -> None:
    assert "--json" in COMMANDS[names]


def test_no_argument_is_a_secret() -> None:
    own = [option for parameter in get_command(app).params for option in parameter.opts]

    assert [option for options in [own, *COMMANDS.values()] for option in options if SECRET.search(option)] == []


def test_each_command_is_on_its_page() -> None:
    missing = [names for names in COMMANDS if f"match {names[0]}" not in PAGE]

    assert missing == []


def test_each_exit_code_is_on_its_page() -> None:
    documented = [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]

    assert documented == sorted(Exit)


@pytest.mark.parametrize(
    ("words", "completed"),
    [("match dup", "duplicates"), ("match batches fol", "follow"), ("match add --pru", "--prune")],
)
def test_commands_and_options_are_completed(words: str, completed: str) -> None:
    environment = {"_MATCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": f"{len(words.split()) - 1}"}

    result = subprocess.run(
        [sys.executable, "-c", "from match_cli.__main__ import main; main()"],
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT / "client")},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert result.stdout.split() == [completed]


def test_help_names_the_import_of_an_index() -> None:
    assert "python -m common.store.import_elasticsearch URL INDEX" in (get_command(app).help or "").replace("\n", " ")
