"""The mirror: a process's copy of all signatures in memory, updated before each search."""

import sqlite3
import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.images.signature import LENGTH
from common.store.sqlite.scan import BLOCK, Scan


class Mirror:
    """The copy; `connect` opens its one connection for reads."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._version: int | None = None
        self._change = 0
        self._scan = Scan()

    def current(self) -> Scan:
        """Return the copy with everything committed before this call."""
        with self._lock:
            try:
                self._catch_up()
            except BaseException:
                self._disconnect()
                raise
            return self._scan

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._disconnect()

    def _catch_up(self) -> None:
        # `data_version` changes when another connection commits; this connection never writes.
        self._db = self._db or self._connect()
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._db.execute("BEGIN")
            self._load(self._db)
            self._db.execute("COMMIT")
            self._version = version

    def _load(self, db: sqlite3.Connection) -> None:
        change, purged = db.execute("SELECT change, purged FROM state").fetchone()
        if purged > self._change or self._scan.is_wasteful:
            self._scan, self._change = Scan(), 0
        cursor = db.execute("SELECT id, deleted, sig FROM images WHERE change > ?", [self._change])
        while rows := cursor.fetchmany(BLOCK):
            self._scan.forget(np.array([owner for owner, _, _ in rows], np.int64))
            self._scan.append(*_searchable([(owner, sig) for owner, deleted, sig in rows if not deleted]))
        self._change = change

    def _disconnect(self) -> None:
        """Close; the next search connects again and loads all later changes."""
        if self._db is not None:
            self._db.close()
        self._db = self._version = None


def _searchable(records: Sequence[tuple[int, bytes]]) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Return owners and rows of all signatures that are not featureless."""
    owners = np.repeat(
        np.array([owner for owner, _ in records], np.int64),
        np.array([len(sig) // LENGTH for _, sig in records], np.int64),
    )
    rows = np.frombuffer(b"".join(sig for _, sig in records), np.int8).reshape(-1, LENGTH)
    featured = rows.any(axis=1)
    return owners[featured], rows[featured]
