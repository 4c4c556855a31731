"""The command line `match`, run in the process of the test."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from match_cli.__main__ import app

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON that it printed."""
        return json.loads(self.out)


@dataclass(frozen=True)
class MatchCommand:
    """Runs commands with a service and with files of their own in `home`."""

    home: Path
    url: str
    api_key: str = ""

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of commands."""
        return {
            "HOME": str(self.home),
            "MATCH_URL": self.url,
            "MATCH_API_KEY": self.api_key,
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }

    def __call__(self, *arguments: object, stdin: str | None = None, **environment: str) -> Finished:
        """Run a command to its end."""
        with _environment({**self.environment, **environment}):
            result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Finished(result.exit_code, result.stdout, result.stderr)

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        """Start a command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "match_cli", *(str(argument) for argument in arguments)],
            env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT / "client")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, line: str) -> Finished:
        """Run a line of a shell that must succeed: `match …`, perhaps after another command and a pipe."""
        before, _, command = line.rpartition("| ")
        stdin = subprocess.check_output(["/bin/sh", "-c", before], text=True) if before else None
        program, *arguments = shlex.split(command)
        assert program == "match", f"another program: {line}"
        result = self(*(re.sub(r"^~", str(self.home), argument) for argument in arguments), stdin=stdin)
        assert result.code == 0, f"{line}: {result}"
        return result


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code of a page in docs/, in a language."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, without those of the tests' own."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("MATCH_")]:
        del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
