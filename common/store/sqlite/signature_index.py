"""The signatures that a process searches: shared segments and a tail in memory, updated before each search."""

import logging
import sqlite3
import threading

from common.errors import StoreError
from common.store.sqlite.builder import REBUILT, Builder, listed
from common.store.sqlite.changes import count_changes, read_changes
from common.store.sqlite.connections import Connections
from common.store.sqlite.segments import Segment, UnusableSegmentError, open_segment
from common.store.sqlite.view import View, view_of

log = logging.getLogger(__name__)

# Changed images in memory, from which a segment is written: 2 MB in each process, and joined within a millisecond.
TAIL = 16_384
# Other processes may replace the segments between the reading of their list and the opening of their files.
_ATTEMPTS = 5


class SignatureIndex:
    """The index; one connection reads, and others of the pool publish segments."""

    def __init__(self, connections: Connections, builder: Builder) -> None:
        self._connections = connections
        self._builder = builder
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._version: int | None = None
        self._view: View | None = None
        self._thread: threading.Thread | None = None
        self._build_at = TAIL

    def current(self) -> View:
        """Return the signatures with everything committed before this call."""
        with self._lock:
            try:
                return self._catch_up()
            except BaseException:
                self._disconnect()
                raise

    def close(self) -> None:
        """Close the connection, after the end of a running build."""
        with self._lock:
            self._disconnect()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _catch_up(self) -> View:
        # `data_version` changes when another connection commits; this connection never writes.
        self._db = self._db or self._connections.open()
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if self._view is None or version != self._version:
            self._view = self._load(self._db)
            self._version = version
            self._build_if_large(self._view)
        return self._view

    def _load(self, db: sqlite3.Connection) -> View:
        for _ in range(_ATTEMPTS):
            view = self._read(db)
            if view is not None:
                return view
            try:
                self._builder.rebuild()
            except StoreError as error:
                log.warning("segments cannot be written, all signatures are read into memory: %s", error)
                break
        return self._read_all(db)

    def _read(self, db: sqlite3.Connection) -> View | None:
        """Return the view of the latest transaction; None if segments are absent, damaged or far behind."""
        db.execute("BEGIN")
        try:
            base = self._base(db)
            if count_changes(db, after=base.change, limit=REBUILT + 1) > REBUILT:
                return None
            return _latest(db, base)
        except UnusableSegmentError:
            return None
        finally:
            db.execute("COMMIT")

    def _read_all(self, db: sqlite3.Connection) -> View:
        """Return a view without segments."""
        db.execute("BEGIN")
        view = _latest(db, View(0, listed(db)[0], (), ()))
        db.execute("COMMIT")
        return view

    def _base(self, db: sqlite3.Connection) -> View:
        """Return the view from which to continue."""
        names, covered = listed(db)
        if self._view is not None and self._view.listed == names:
            return self._view
        self._build_at = TAIL
        opened = {segment.name: segment for segment in self._view.segments} if self._view else {}
        return view_of([self._open(name, opened.get(name)) for name in names], covered)

    def _open(self, name: str, opened: Segment | None) -> Segment:
        return opened or open_segment(self._builder.folder, name)

    def _build_if_large(self, view: View) -> None:
        """Write a segment in a thread, so that no search waits; after a failure when the tail has grown again."""
        if view.changed < self._build_at or (self._thread is not None and self._thread.is_alive()):
            return
        self._build_at = view.changed + TAIL
        self._thread = threading.Thread(target=self._build, args=(view,), name="build-segment", daemon=True)
        self._thread.start()

    def _build(self, view: View) -> None:
        try:
            self._builder.merge(view)
        except StoreError as error:
            log.warning("a segment cannot be written, more signatures stay in memory: %s", error)

    def _disconnect(self) -> None:
        """Close; the next search connects again and loads all later changes."""
        if self._db is not None:
            self._db.close()
        self._db = self._version = None


def _latest(db: sqlite3.Connection, base: View) -> View:
    change = db.execute("SELECT change FROM state").fetchone()[0]
    return base.after(change, list(read_changes(db, after=base.change)))
