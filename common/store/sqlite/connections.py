"""Connections to the SQLite file, kept for the next caller; SQLite's errors as ours."""

import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import StoreError, StoreUnavailable

# A full disk, a lock held too long, a file that cannot be written or reached: an operator can mend these, and the same
# call then succeeds. Damage is not among them.
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


class Connections:
    """Connections to the file `path`; none is opened before it is needed."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = threading.Event()

    def open(self, *, mode: str = "rw") -> sqlite3.Connection:
        """Return a connection that is the caller's to close."""
        return open_file(self._path, timeout_s=self._busy_timeout_s, mode=mode)

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection; one that saw an error is not lent again."""
        if self._closed.is_set():
            raise StoreError("the store is closed")
        with our_errors():
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
        """Take the write lock; whatever the block did is durable after it, or undone where it raised."""
        with self.lend() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    def close(self) -> None:
        """Close every connection; those in use are closed on their return."""
        self._closed.set()
        self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


def open_file(path: Path, *, timeout_s: float, mode: str = "rw") -> sqlite3.Connection:
    """Connect; with `rw` a file that is missing stays missing, so that nobody writes into an empty one unawares."""
    db = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    # In WAL mode NORMAL would lose the last commits with the power; FULL syncs each.
    db.execute("PRAGMA synchronous = FULL")
    return db


@contextmanager
def our_errors() -> Iterator[None]:
    """Turn SQLite's errors, and those of the file system, into ours."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        # The lowest byte is the kind of error, what stands above it a detail.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR if isinstance(error, OSError) else 0) & 0xFF
        kind = StoreUnavailable if code in UNAVAILABLE else StoreError
        message = f"the embedded store: {error}"
        raise kind(message) from error
