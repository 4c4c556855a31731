"""The files of runs that can be continued: SQLite databases, each used by one run at a time."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from match_cli.exits import UsageProblem


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection in autocommit mode, and create the file and its folder if absent."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageProblem(f"{path.parent}: {error.strerror or error}") from error
    with wrap_errors(path):
        return sqlite3.connect(path, isolation_level=None, timeout=0)


@contextmanager
def wrap_errors(path: Path) -> Iterator[None]:
    """Raise errors of the database as UsageProblem."""
    try:
        yield
    except sqlite3.Error as error:
        reason = "another run is using it" if "locked" in str(error) else str(error)
        raise UsageProblem(f"{path}: {reason}") from error
