"""The files of runs that can be continued: SQLite databases, each used by one run at a time."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from match_cli.exits import UsageProblem


@contextmanager
def opening(path: Path) -> Iterator[sqlite3.Connection]:
    """Provide a connection in autocommit mode to prepare the file in the `with`, and close it only after an error.

    The file and its folder are created if absent. Errors of the database and the folder are UsageProblems.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageProblem(f"{path.parent}: {error.strerror or error}") from error
    with ExitStack() as undo:
        try:
            database = sqlite3.connect(path, isolation_level=None, timeout=0)
            undo.callback(database.close)
            yield database
        except sqlite3.Error as error:
            reason = "another run is using it" if "locked" in str(error) else str(error)
            raise UsageProblem(f"{path}: {reason}") from error
        undo.pop_all()
