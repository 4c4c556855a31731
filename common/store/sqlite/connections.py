"""The pool of connections to the SQLite file, and SQLite's errors as StoreError."""

import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import StoreError, StoreUnavailable, StoreUnusable
from common.store.sqlite import tables

# A full disk, a lock time-out, a file that cannot be written or reached: the same call may succeed later.
UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
}
# A damaged file, or a file of another program: SQLITE_ERROR is a missing table or column.
UNUSABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}
REPAIR = "replace the file by a backup, or set MATCH_STORE_URL to another"


class Connections:
    """Connections to the file `path`, opened on demand."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = threading.Event()

    def open(self) -> sqlite3.Connection:
        """Return a new connection; the caller closes it."""
        db = open_file(self._path, timeout_s=self._busy_timeout_s)
        try:
            _check_version(db, self._path)
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection; one that raised an error is closed, not reused."""
        if self._closed.is_set():
            raise StoreError("the store is closed")
        with wrap_errors():
            try:
                db = self._idle.pop()
            except IndexError:
                db = self.open()
            try:
                yield db
            except BaseException:
                db.close()
                raise
            self._idle.append(db)
            if self._closed.is_set():
                self._close_idle()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Acquire the write lock, and commit durably at the end of the `with`; an exception rolls back."""
        with self.lend() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    def close(self) -> None:
        """Close every connection; those in use are closed when returned."""
        self._closed.set()
        self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


def check_usable(db: sqlite3.Connection, path: Path) -> None:
    """Raise StoreUnusable if the file has tables of a newer version or of another program."""
    # First: another process may create the tables meanwhile, and sets the version with them.
    has_tables = tables.has_any(db)
    version = tables.version(db)
    if version > tables.SCHEMA_VERSION:
        message = f"{path} was written by a newer version of Match (schema version {version})"
        raise StoreUnusable(message)
    if has_tables and not version:
        message = f"{path} belongs to another program: {REPAIR}"
        raise StoreUnusable(message)


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    """Raise StoreUnavailable until the file has tables of this version."""
    check_usable(db, path)
    if version := tables.version(db):
        if version < tables.SCHEMA_VERSION:
            message = f"{path} has tables of an earlier version of Match, which its start migrates"
            raise StoreUnavailable(message)
    else:
        message = f"{path} has no tables yet, which the start of Match creates"
        raise StoreUnavailable(message)


def open_file(path: Path, *, timeout_s: float, mode: str = "rw") -> sqlite3.Connection:
    """Connect; with `rw` a missing file is an error, so that no caller writes to a new empty one."""
    db = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    # In WAL mode, NORMAL loses the last commits at a power failure; FULL syncs each commit.
    db.execute("PRAGMA synchronous = FULL")
    return db


@contextmanager
def wrap_errors() -> Iterator[None]:
    """Raise the errors of SQLite and the file system as StoreError or StoreUnavailable."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        # The lowest byte is the primary result code, the bytes above it are details.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR if isinstance(error, OSError) else 0) & 0xFF
        if code in UNUSABLE:
            message = f"embedded store: {error}: {REPAIR}"
            raise StoreUnusable(message) from error
        kind = StoreUnavailable if code in UNAVAILABLE else StoreError
        message = f"embedded store: {error}"
        raise kind(message) from error
