"""The command line `match`, run in the process of the test."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from match_cli.__main__ import app


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

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of commands."""
        return {
            "HOME": str(self.home),
            "MATCH_URL": self.url,
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
