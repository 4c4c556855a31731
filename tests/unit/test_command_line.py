"""The command lines of the programs that operators start."""

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from common.command_line import SETTINGS_PAGE
from support.commands import run_python

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ["api", "workers", "common.store.prepare", "common.store.reindex", "api.new_key"]


def run(*arguments: str) -> "CompletedProcess[str]":
    # This setting stops a program that ignores its arguments.
    return run_python("-m", *arguments, environment={"PORT": "none"})


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_describes_a_program_and_names_its_settings(program: str) -> None:
    result = run(program, "--help")

    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: python -m {program} [-h]")
    assert SETTINGS_PAGE in result.stdout
    assert (ROOT / SETTINGS_PAGE).is_file()


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_argument_is_rejected(program: str) -> None:
    result = run(program, "--unknown")

    assert result.returncode == 2
    assert result.stderr.startswith(f"usage: python -m {program} [-h]")
