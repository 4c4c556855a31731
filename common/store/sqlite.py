"""The embedded store: one SQLite file, shared by every process of a machine.

The file is the truth. Each process that searches holds a copy of the signatures in memory (`common.store.scan`) and
brings it up to date before a search.
"""

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError, StoreUnavailable
from common.signature import LENGTH
from common.store.base import (
    Candidate,
    Health,
    Page,
    Record,
    Tombstone,
    Verdict,
    Written,
    signatures_from_bytes,
    signatures_to_bytes,
)
from common.store.labels import labels, wanted
from common.store.scan import BLOCK, Owners, Scan

# How long a writer waits for other writers; each holds the lock for some milliseconds.
BUSY_TIMEOUT_S = 10.0
SCHEMA_VERSION = 2
UNLABELLED_VERSION = 1
# `id` is never used again (AUTOINCREMENT): what was purged cannot be taken for what came later. `change` counts
# transactions, in the order of their commits; `seq` counts requests, and an older one may commit later.
# `state.purged` is the newest change of which a trace was purged. `labels` are those of the records' metadata.
SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL UNIQUE,
    seq INTEGER NOT NULL,
    change INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    added INTEGER NOT NULL,
    width INTEGER,
    height INTEGER,
    sig BLOB,
    metadata TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS images_changed ON images (change);
CREATE INDEX IF NOT EXISTS images_listed ON images (seq) WHERE deleted = 0;
CREATE INDEX IF NOT EXISTS images_deleted ON images (added) WHERE deleted = 1;
CREATE TABLE IF NOT EXISTS labels (
    label TEXT NOT NULL,
    image INTEGER NOT NULL,
    PRIMARY KEY (label, image)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    change INTEGER NOT NULL,
    purged INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO state VALUES (1, 0, 0);
COMMIT;
"""
UPSERT = """
INSERT INTO images (path, seq, change, deleted, added, width, height, sig, metadata)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET
    seq = excluded.seq, change = excluded.change, deleted = excluded.deleted, added = excluded.added,
    width = excluded.width, height = excluded.height, sig = excluded.sig, metadata = excluded.metadata
RETURNING id
"""
LABEL = "INSERT OR IGNORE INTO labels (image, label) VALUES (?, ?)"
UNLABEL = "DELETE FROM labels WHERE image = ? AND label = ?"
PURGE = """
DELETE FROM images WHERE id IN (SELECT id FROM images WHERE deleted = 1 AND added < ? ORDER BY added LIMIT ?)
RETURNING change
"""
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

_Row: TypeAlias = tuple[Any, ...]


class SqliteStore:
    """Store in the file `path`; nothing is opened before the first call, and nothing stays open after `prepare`."""

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._open = partial(_open, path, timeout_s=busy_timeout_s)
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = threading.Event()
        self._mirror = _Mirror(self._open)

    def prepare(self) -> None:
        """Create file, tables and indices where absent."""
        with _our_errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open(mode="rwc")) as db:
                version = int(db.execute("PRAGMA user_version").fetchone()[0])
                if version > SCHEMA_VERSION:
                    message = f"{self._path} was written by a newer Match (version {version} of its tables)"
                    raise StoreError(message)
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(SCHEMA)
                db.execute("BEGIN IMMEDIATE")
                if int(db.execute("PRAGMA user_version").fetchone()[0]) == UNLABELLED_VERSION:
                    _label_all(db)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                db.execute("COMMIT")

    def put(self, items: Sequence[Record | Tombstone]) -> list[Written]:
        """Write all in one transaction; an item that cannot be kept is refused and costs the others nothing."""
        with self._transaction() as db:
            change = db.execute("UPDATE state SET change = change + 1 RETURNING change").fetchone()[0]
            return [_put(db, item, change) for item in items]

    def candidates(
        self, queries: NDArray[np.int8], *, limit: int, where: Mapping[str, str] | None = None
    ) -> list[list[Candidate]]:
        """Return exactly the nearest."""
        keep, needed = _filter(where)
        sql = f"SELECT id, path, sig FROM images WHERE id IN (SELECT value FROM json_each(?)) AND {keep}"  # noqa: S608 - no input
        with self._connection() as db:
            scan = self._mirror.current()
            near = scan.nearest(queries, limit=limit, among=_passing(db, where) if where else None)
            found_ids = json.dumps(sorted({owner for owners in near for owner in owners}))
            rows = db.execute(sql, [found_ids, *needed])
            found = {row[0]: Candidate(row[1], signatures_from_bytes(row[2])) for row in rows}
        return [[found[owner] for owner in owners if owner in found] for owners in near]

    def records(self, filepaths: Sequence[str]) -> dict[str, Record]:
        """Return the records of those filepaths that are stored."""
        sql = (
            "SELECT path, seq, added, width, height, sig, metadata FROM images "
            "WHERE deleted = 0 AND path IN (SELECT value FROM json_each(?))"
        )
        with self._connection() as db:
            return {row[0]: _record(row) for row in db.execute(sql, [json.dumps(filepaths)])}

    def metadata(self, filepaths: Sequence[str]) -> dict[str, Mapping[str, Any] | None]:
        """Return the metadata of those filepaths that are stored."""
        return {filepath: record.metadata for filepath, record in self.records(filepaths).items()}

    def filepaths(self, *, offset: int, limit: int, where: Mapping[str, str] | None = None) -> Page:
        """Return filepaths by seq: the offset walks over one small index, not over the records."""
        keep, needed = _filter(where)
        sql = f"SELECT path, seq FROM images WHERE {keep} ORDER BY seq, id LIMIT ? OFFSET ?"  # noqa: S608 - no input
        with self._connection() as db:
            return _page(db.execute(sql, [*needed, limit, offset]).fetchall(), after=0)

    def filepaths_after(self, seq: int, *, limit: int, where: Mapping[str, str] | None = None) -> Page:
        """Return the filepaths that follow `seq`."""
        keep, needed = _filter(where)
        sql = f"SELECT path, seq FROM images WHERE {keep} AND seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - no input
        with self._connection() as db:
            return _page(db.execute(sql, [*needed, seq, limit]).fetchall(), after=seq)

    def count(self, *, where: Mapping[str, str] | None = None) -> int:
        """Return how many pictures are stored."""
        keep, needed = _filter(where)
        with self._connection() as db:
            return int(db.execute(f"SELECT count(*) FROM images WHERE {keep}", needed).fetchone()[0])  # noqa: S608 - no input

    def refresh(self) -> None:
        """Do nothing: every search looks at what was committed before it."""

    def purge(self, *, before: int, limit: int) -> int:
        """Forget old tombstones, and note it for processes that have not read them yet."""
        with self._transaction() as db:
            changes = [change for (change,) in db.execute(PURGE, [before, limit])]
            if changes:
                db.execute("UPDATE state SET purged = max(purged, ?)", [max(changes)])
        return len(changes)

    def health(self) -> Health:
        """Say whether the file can be read, and a write begun."""
        try:
            with self._connection() as db:
                db.execute("SELECT 1 FROM state").fetchone()
        except StoreError as error:
            return Health(reads=False, writes=False, detail=str(error))
        try:
            _try_to_write(self._path)
        except StoreError as error:
            return Health(reads=True, writes=False, detail=str(error))
        return Health(reads=True, writes=True)

    def close(self) -> None:
        """Close every connection; those in use are closed on their return."""
        self._closed.set()
        self._mirror.close()
        self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection; one that saw an error is not lent again."""
        if self._closed.is_set():
            raise StoreError("the store is closed")
        with _our_errors():
            try:
                db = self._idle.pop()
            except IndexError:
                db = self._open()
            try:
                yield db
            except BaseException:
                db.close()
                raise
            self._idle.append(db)
            if self._closed.is_set():
                self._close_idle()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Take the write lock; whatever the block did is durable after it, or undone where it raised."""
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")


class _Mirror:
    """This process's copy of all signatures."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._version: int | None = None
        self._change = 0
        self._scan = Scan()

    def current(self) -> Scan:
        """Return the copy with all in it that was committed before this call."""
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
        # `data_version` moves when another connection commits: this one never writes, so it sees every write.
        self._db = self._db or self._connect()
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._db.execute("BEGIN")
            self._load(self._db)
            self._db.execute("COMMIT")
            self._version = version

    def _load(self, db: sqlite3.Connection) -> None:
        change, purged = db.execute("SELECT change, purged FROM state").fetchone()
        if purged > self._change or self._scan.wasteful:
            self._scan, self._change = Scan(), 0
        cursor = db.execute("SELECT id, deleted, sig FROM images WHERE change > ?", [self._change])
        while rows := cursor.fetchmany(BLOCK):
            self._scan.forget(np.array([owner for owner, _, _ in rows], np.int64))
            self._scan.append(*_searchable([(owner, sig) for owner, deleted, sig in rows if not deleted]))
        self._change = change

    def _disconnect(self) -> None:
        """Close, and look at everything since the last change when the next search connects."""
        if self._db is not None:
            self._db.close()
        self._db = self._version = None


def _searchable(records: Sequence[tuple[int, bytes]]) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Return owners and rows of all signatures that have a feature."""
    owners = np.repeat(
        np.array([owner for owner, _ in records], np.int64),
        np.array([len(sig) // LENGTH for _, sig in records], np.int64),
    )
    rows = np.frombuffer(b"".join(sig for _, sig in records), np.int8).reshape(-1, LENGTH)
    featured = rows.any(axis=1)
    return owners[featured], rows[featured]


def _filter(where: Mapping[str, str] | None) -> tuple[str, list[str]]:
    """Return the condition on stored pictures that pass the filter, and its parameters."""
    needed = wanted(where)
    labelled = " AND id IN (SELECT image FROM labels WHERE label = ?)"
    return "deleted = 0" + labelled * len(needed), needed


def _passing(db: sqlite3.Connection, where: Mapping[str, str]) -> Owners:
    keep, needed = _filter(where)
    rows = db.execute(f"SELECT id FROM images WHERE {keep}", needed)  # noqa: S608 - no input
    return np.fromiter((owner for (owner,) in rows), np.int64)


def _put(db: sqlite3.Connection, item: Record | Tombstone, change: int) -> Written:
    try:
        row = _row(item, change)
        fresh = set() if isinstance(item, Tombstone) else labels(item.metadata)
        seq, stale = _standing(db, item.filepath)
        if seq > item.seq:
            return Written(Verdict.SUPERSEDED)
        if seq < item.seq:
            owner = db.execute(UPSERT, row).fetchone()[0]
            db.executemany(UNLABEL, [(owner, label) for label in stale - fresh])
            db.executemany(LABEL, [(owner, label) for label in fresh - stale])
    except (ValueError, TypeError, OverflowError, RecursionError, sqlite3.DataError, sqlite3.IntegrityError) as error:
        return Written(Verdict.REFUSED, f"cannot be stored: {error}")
    return Written(Verdict.STORED)


def _standing(db: sqlite3.Connection, filepath: str) -> tuple[int, set[str]]:
    """Return the seq and the labels of what stands there; a seq below all others where nothing does."""
    row = db.execute("SELECT seq, metadata FROM images WHERE path = ?", [filepath]).fetchone()
    if row is None:
        return -1, set()
    seq, metadata = row
    return seq, set() if metadata is None else labels(json.loads(metadata))


def _label_all(db: sqlite3.Connection) -> None:
    """Label what an older Match stored without."""
    rows = db.execute("SELECT id, metadata FROM images WHERE metadata IS NOT NULL")
    for owner, metadata in rows:
        db.executemany(LABEL, [(owner, label) for label in labels(json.loads(metadata))])


def _row(item: Record | Tombstone, change: int) -> _Row:
    if isinstance(item, Tombstone):
        return (item.filepath, item.seq, change, 1, item.added, None, None, None, None)
    metadata = None if item.metadata is None else json.dumps(item.metadata, allow_nan=False)
    sig = signatures_to_bytes(item.signatures)
    return (item.filepath, item.seq, change, 0, item.added, item.width, item.height, sig, metadata)


def _page(rows: Sequence[tuple[str, int]], *, after: int) -> Page:
    return Page([path for path, _ in rows], rows[-1][1] if rows else after)


def _record(row: _Row) -> Record:
    filepath, seq, added, width, height, sig, metadata = row
    return Record(
        filepath=filepath,
        seq=seq,
        signatures=signatures_from_bytes(sig),
        metadata=None if metadata is None else json.loads(metadata),
        added=added,
        width=width,
        height=height,
    )


def _open(path: Path, *, timeout_s: float, mode: str = "rw") -> sqlite3.Connection:
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
def _our_errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        # The lowest byte is the kind of error, what stands above it a detail.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR if isinstance(error, OSError) else 0) & 0xFF
        kind = StoreUnavailable if code in UNAVAILABLE else StoreError
        message = f"the embedded store: {error}"
        raise kind(message) from error


def _try_to_write(path: Path) -> None:
    with _our_errors(), closing(_open(path, timeout_s=0)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            # Busy: somebody else is writing, so writes work.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
