"""The embedded store's tables: their schema, and records as rows."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, TypeAlias

from common.store.base import (
    Record,
    Tombstone,
    Verdict,
    Written,
    signatures_from_bytes,
    signatures_to_bytes,
)
from common.store.labels import labels, required_labels

SCHEMA_VERSION = 2
UNLABELLED_VERSION = 1
# `id` is never reused (AUTOINCREMENT), so that a purged row cannot be confused with a later one. `change` numbers
# transactions in the order of their commits. `seq` numbers requests, and a lower one may commit later. `state.purged`
# is the highest `change` of the purged rows. `labels` contains the labels of the records' metadata.
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
RECORDS = """
SELECT path, seq, added, width, height, sig, metadata FROM images
WHERE deleted = 0 AND path IN (SELECT value FROM json_each(?))
"""
METADATA = "SELECT path, metadata FROM images WHERE deleted = 0 AND path IN (SELECT value FROM json_each(?))"
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

_Row: TypeAlias = tuple[Any, ...]


def version(db: sqlite3.Connection) -> int:
    """Return the schema version; 0 without tables."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def create(db: sqlite3.Connection) -> None:
    """Create tables and indices if absent, and migrate older ones to this version."""
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(SCHEMA)
    db.execute("BEGIN IMMEDIATE")
    if version(db) == UNLABELLED_VERSION:
        _label_all(db)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def condition(where: Mapping[str, str] | None) -> tuple[str, list[str]]:
    """Return the SQL condition for records that pass the filter, and its parameters."""
    needed = required_labels(where)
    labelled = " AND id IN (SELECT image FROM labels WHERE label = ?)"
    return "deleted = 0" + labelled * len(needed), needed


def write(db: sqlite3.Connection, item: Record | Tombstone, change: int) -> Written:
    """Write one item in the transaction `change`, unless an item with a higher seq is stored."""
    try:
        row = _row(item, change)
        fresh = set() if isinstance(item, Tombstone) else labels(item.metadata)
        seq, stale = _existing(db, item.filepath)
        if seq > item.seq:
            return Written(Verdict.SUPERSEDED)
        if seq < item.seq:
            owner = db.execute(UPSERT, row).fetchone()[0]
            db.executemany(UNLABEL, [(owner, label) for label in stale - fresh])
            db.executemany(LABEL, [(owner, label) for label in fresh - stale])
    except (ValueError, TypeError, OverflowError, RecursionError, sqlite3.DataError, sqlite3.IntegrityError) as error:
        return Written(Verdict.REJECTED, f"cannot be stored: {error}")
    return Written(Verdict.STORED)


def _existing(db: sqlite3.Connection, filepath: str) -> tuple[int, set[str]]:
    """Return the seq and the labels of the stored item; a seq below all others if there is none."""
    row = db.execute("SELECT seq, metadata FROM images WHERE path = ?", [filepath]).fetchone()
    if row is None:
        return -1, set()
    seq, metadata = row
    return seq, labels(read_metadata(metadata))


def _label_all(db: sqlite3.Connection) -> None:
    """Add the labels that an older version of Match did not store."""
    rows = db.execute("SELECT id, metadata FROM images WHERE metadata IS NOT NULL")
    for owner, metadata in rows:
        db.executemany(LABEL, [(owner, label) for label in labels(json.loads(metadata))])


def _row(item: Record | Tombstone, change: int) -> _Row:
    if isinstance(item, Tombstone):
        return (item.filepath, item.seq, change, 1, item.added, None, None, None, None)
    metadata = None if item.metadata is None else json.dumps(item.metadata, allow_nan=False)
    sig = signatures_to_bytes(item.signatures)
    return (item.filepath, item.seq, change, 0, item.added, item.width, item.height, sig, metadata)


def record(row: _Row) -> Record:
    """Return the record in a row of RECORDS."""
    filepath, seq, added, width, height, sig, metadata = row
    return Record(
        filepath=filepath,
        seq=seq,
        signatures=signatures_from_bytes(sig),
        metadata=read_metadata(metadata),
        added=added,
        width=width,
        height=height,
    )


def read_metadata(text: str | None) -> Mapping[str, Any] | None:
    """Return the metadata in a row's text."""
    metadata: Mapping[str, Any] | None = None if text is None else json.loads(text)
    return metadata
