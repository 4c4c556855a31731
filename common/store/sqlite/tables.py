"""The embedded store's tables: their schema, and records as rows."""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from common.store.base import (
    Item,
    Patch,
    Record,
    Tombstone,
    Verdict,
    Written,
    signatures_from_bytes,
    signatures_to_bytes,
)
from common.store.labels import labels
from common.store.patches import History, Unpatched, unpatched_of
from common.store.sqlite import catalogue, histories
from common.store.words import indexed_words

SCHEMA_VERSION = 4
_LABELLED_VERSION = 2
_COLLECTIONS_VERSION = 3
# `id` is never reused (AUTOINCREMENT), so that a purged row cannot be confused with a later one. `change` numbers
# transactions in the order of their commits. `seq` numbers requests, and a lower one may commit later; `metadata_seq`
# is that of the request that wrote the metadata. `unpatched` are the metadata before the patches in `patches`. `labels`
# contains the labels of the records' metadata.
_IMAGES = """
CREATE TABLE {name} (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL DEFAULT 1,
    path TEXT NOT NULL,
    seq INTEGER NOT NULL,
    metadata_seq INTEGER NOT NULL,
    change INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    featureless INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL,
    width INTEGER,
    height INTEGER,
    sig BLOB,
    sha256 BLOB,
    url TEXT,
    metadata TEXT,
    unpatched TEXT,
    UNIQUE (collection, path)
) STRICT
"""
_LABELS = """
CREATE TABLE IF NOT EXISTS labels (
    label TEXT NOT NULL,
    image INTEGER NOT NULL,
    PRIMARY KEY (label, image)
) STRICT, WITHOUT ROWID
"""
# Local features have a table of their own: they are several times as large as a row of `images`, and most statements
# read many rows of `images` and no features. `segments` lists the segment files, oldest first; together they
# cover all changes up to the highest `change`. A restored copy of the database lists the files of its own state,
# because a file's random name is never used again. `purged` has the ids of purged rows that no segment covers.
_OTHERS = (
    "CREATE INDEX images_changed ON images (change)",
    "CREATE INDEX images_listed ON images (collection, seq) WHERE deleted = 0",
    "CREATE INDEX images_deleted ON images (added) WHERE deleted = 1",
    *catalogue.CREATE,
    *histories.CREATE,
    "CREATE TABLE local_features (image INTEGER PRIMARY KEY, features BLOB NOT NULL) STRICT",
    "CREATE TABLE segments (position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, change INTEGER NOT NULL) STRICT",
    "CREATE TABLE purged (id INTEGER PRIMARY KEY, collection INTEGER NOT NULL, change INTEGER NOT NULL) STRICT",
)
_STATE = (
    "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), change INTEGER NOT NULL) STRICT",
    "INSERT INTO state VALUES (1, 0)",
)
_COPY = """
INSERT INTO images_new (
    id, collection, path, seq, metadata_seq, change, deleted, featureless, added, width, height, sig, metadata
)
SELECT
    id, 1, path, seq, seq, change, deleted, coalesce(sig = zeroblob(length(sig)), 0), added, width, height, sig,
    metadata
FROM images
"""
# SQLite cannot change a UNIQUE constraint, so the table is written again. The highest id that was ever used is kept.
_MIGRATION = (
    _IMAGES.format(name="images_new"),
    _COPY,
    "DELETE FROM sqlite_sequence WHERE name = 'images_new'",
    "INSERT INTO sqlite_sequence SELECT 'images_new', seq FROM sqlite_sequence WHERE name = 'images'",
    "DROP TABLE images",
    "ALTER TABLE images_new RENAME TO images",
    *_OTHERS,
    catalogue.COUNT_DEFAULT,
    "ALTER TABLE state DROP COLUMN purged",
)
_MIGRATION_FROM_3 = ("ALTER TABLE images ADD COLUMN unpatched TEXT", *histories.CREATE)
# Without statistics SQLite prefers an index on two constants to a search by path. The plus sign excludes the index.
_BY_PATH = """
WHERE collection = (SELECT id FROM collections WHERE name = ?)
    AND +deleted = 0 AND path IN (SELECT value FROM json_each(?))
"""
RECORDS = f"""
SELECT path, seq, metadata_seq, added, width, height, sig, sha256, url, metadata, features
FROM images LEFT JOIN local_features ON image = id {_BY_PATH}
"""  # noqa: S608 - no input
METADATA = f"SELECT path, metadata FROM images {_BY_PATH}"  # noqa: S608 - no input
UPSERT = """
INSERT INTO images (
    collection, path, seq, metadata_seq, change, deleted, featureless, added, width, height, sig, sha256, url, metadata,
    unpatched
)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
ON CONFLICT (collection, path) DO UPDATE SET
    seq = excluded.seq, metadata_seq = excluded.metadata_seq, change = excluded.change, deleted = excluded.deleted,
    featureless = excluded.featureless, added = excluded.added, width = excluded.width, height = excluded.height,
    sig = excluded.sig, sha256 = excluded.sha256, url = excluded.url, metadata = excluded.metadata,
    unpatched = excluded.unpatched
RETURNING id
"""
_EXISTING = """
SELECT id, seq, deleted, metadata, metadata_seq, unpatched FROM images WHERE collection = ? AND path = ?
"""
# The signatures stay, so `change` does too: no segment is written again.
_SET_METADATA = "UPDATE images SET metadata = ?, metadata_seq = ?, unpatched = ? WHERE id = ?"
LABEL = "INSERT OR IGNORE INTO labels (image, label) VALUES (?, ?)"
UNLABEL = "DELETE FROM labels WHERE image = ? AND label = ?"
_FEATURES = "INSERT OR REPLACE INTO local_features (image, features) VALUES (?, ?)"
_NO_FEATURES = "DELETE FROM local_features WHERE image = ?"
_PURGE = """
DELETE FROM images WHERE id IN (SELECT id FROM images WHERE deleted = 1 AND added < ? ORDER BY added LIMIT ?)
RETURNING id, collection, change
"""

_Row: TypeAlias = tuple[Any, ...]


def version(db: sqlite3.Connection) -> int:
    """Return the schema version; 0 without tables."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def has_any(db: sqlite3.Connection) -> bool:
    """Return whether the file has any table."""
    return db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None


def create(db: sqlite3.Connection) -> None:
    """Create tables and indices if absent, and migrate older ones to this version, in one transaction."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    existing = version(db)
    if existing < SCHEMA_VERSION:
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'images'").fetchone():
            _migrate(db, existing)
        else:
            for statement in (_IMAGES.format(name="images"), _LABELS, *_OTHERS, *_STATE):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def write(db: sqlite3.Connection, items: Sequence[Item], change: int) -> list[Written]:
    """Write items in the transaction `change`, and count the images of their collections."""
    collections = catalogue.numbers(db, (item.collection for item in items))
    added: Counter[int] = Counter()
    outcomes = [_write(db, item, collections[item.collection], change, added) for item in items]
    catalogue.add_counts(db, added)
    return outcomes


def _write(db: sqlite3.Connection, item: Item, collection: int, change: int, added: Counter[int]) -> Written:
    """Write one item, unless an item with a higher seq is stored."""
    try:
        if isinstance(item, Patch):
            return _patch(db, item, collection)
        item, unpatched = (item, None) if isinstance(item, Tombstone) else _patched(db, item, collection)
        row = (collection, *_row(item, change), unpatched)
        fresh = set() if isinstance(item, Tombstone) else labels(item.metadata)
        existing = _existing(db, collection, item.filepath)
        if existing.seq > item.seq:
            return Written(Verdict.SUPERSEDED)
        if existing.seq < item.seq:
            owner = db.execute(UPSERT, row).fetchone()[0]
            _write_features(db, owner, item)
            added[collection] += isinstance(item, Record) - existing.is_image
            _write_labels(db, owner, labels(existing.metadata), fresh)
    except (ValueError, TypeError, OverflowError, RecursionError, sqlite3.DataError, sqlite3.IntegrityError) as error:
        return Written(Verdict.REJECTED, f"cannot be stored: {error}")
    return Written(Verdict.STORED)


def _patched(db: sqlite3.Connection, item: Record, collection: int) -> tuple[Record, str | None]:
    """Return the record with the later patches of its filepath, and its metadata before them as a row has them."""
    history = histories.read(db, collection, item.filepath)
    if history is None:
        return item, None
    unpatched = history.unpatched(None, item.metadata, seq=item.last_metadata_seq)
    metadata, seq = history.apply(unpatched)
    return item.with_metadata(metadata, seq=seq), _text(unpatched.to_json())


def _patch(db: sqlite3.Connection, item: Patch, collection: int) -> Written:
    """Add a patch to the history, and apply it to the record if one is stored."""
    existing = _existing(db, collection, item.filepath)
    if existing.outranks > item.seq:
        return Written(Verdict.SUPERSEDED)
    history = histories.read(db, collection, item.filepath) or History(origin=item.seq)
    unpatched = history.unpatched(existing.unpatched, existing.metadata, seq=existing.metadata_seq)
    applied = existing.metadata_seq if existing.is_image else 0
    history = history.add(item.metadata, seq=item.seq, obsolete=unpatched.seq, applied=applied)
    unpatched = history.unpatched(existing.unpatched, existing.metadata, seq=existing.metadata_seq)
    metadata, seq = history.apply(unpatched)
    row = (None if metadata is None else _text(metadata), seq, _text(unpatched.to_json()), existing.id)
    stale, fresh = labels(existing.metadata), labels(metadata)
    histories.write(db, collection, item.filepath, history, added=item.added)
    if existing.is_image:
        db.execute(_SET_METADATA, row)
        _write_labels(db, existing.id, stale, fresh)
    return Written(Verdict.STORED)


def purge(db: sqlite3.Connection, *, before: int, limit: int) -> int:
    """Delete old tombstones and patches in a transaction; keep the ids of those that no segment covers."""
    covered = db.execute("SELECT coalesce(max(change), 0) FROM segments").fetchone()[0]
    deleted = db.execute(_PURGE, [before, limit]).fetchall()
    uncovered = [row for row in deleted if row[-1] > covered]
    db.executemany("INSERT INTO purged (id, collection, change) VALUES (?, ?, ?)", uncovered)
    patches = histories.purge(db, before=before, limit=limit - len(deleted))
    catalogue.remove_unused(db)
    return len(deleted) + patches


def _write_features(db: sqlite3.Connection, image: int, item: Record | Tombstone) -> None:
    if isinstance(item, Tombstone) or item.features is None:
        db.execute(_NO_FEATURES, [image])
    else:
        db.execute(_FEATURES, [image, item.features])


@dataclass(frozen=True, slots=True)
class _Existing:
    """The stored item of a filepath; without one, its `seq` is below all others."""

    id: int = 0
    seq: int = -1
    is_image: bool = False
    metadata: Mapping[str, Any] | None = None
    metadata_seq: int = -1
    unpatched: Unpatched | None = None

    @property
    def outranks(self) -> int:
        """The sequence number of the request below which patches have no effect."""
        # An image that replaces another one with its metadata has the lower number in `metadata_seq`.
        return min(self.seq, self.metadata_seq if self.unpatched is None else self.unpatched.seq)


def _existing(db: sqlite3.Connection, collection: int, filepath: str) -> _Existing:
    row = db.execute(_EXISTING, [collection, filepath]).fetchone()
    if row is None:
        return _Existing()
    number, seq, deleted, metadata, metadata_seq, unpatched = row
    before = unpatched_of(None if unpatched is None else json.loads(unpatched))
    return _Existing(number, seq, not deleted, read_metadata(metadata), metadata_seq, before)


def _write_labels(db: sqlite3.Connection, owner: int, stale: set[str], fresh: set[str]) -> None:
    db.executemany(UNLABEL, [(owner, label) for label in stale - fresh])
    db.executemany(LABEL, [(owner, label) for label in fresh - stale])


def _migrate(db: sqlite3.Connection, existing: int) -> None:
    if existing < _LABELLED_VERSION:
        db.execute(_LABELS)
        _label_all(db)
    for statement in _MIGRATION if existing < _COLLECTIONS_VERSION else _MIGRATION_FROM_3:
        db.execute(statement)


def _label_all(db: sqlite3.Connection) -> None:
    """Add the labels that an older version of Match did not store."""
    rows = db.execute("SELECT id, metadata FROM images WHERE metadata IS NOT NULL")
    for owner, metadata in rows:
        db.executemany(LABEL, [(owner, label) for label in labels(json.loads(metadata))])


def _row(item: Record | Tombstone, change: int) -> _Row:
    if isinstance(item, Tombstone):
        return (item.filepath, item.seq, item.seq, change, 1, 0, item.added, *[None] * 6)
    metadata = None if item.metadata is None else _text(item.metadata)
    if item.features is not None:
        indexed_words(item.features)
    sig = signatures_to_bytes(item.signatures)
    seqs = (item.seq, item.last_metadata_seq)
    about = (item.added, item.width, item.height)
    return (item.filepath, *seqs, change, 0, int(item.is_featureless), *about, sig, item.sha256, item.url, metadata)


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, allow_nan=False)


def record(row: _Row, collection: str) -> Record:
    """Return the record in a row of RECORDS."""
    filepath, seq, metadata_seq, added, width, height, sig, sha256, url, metadata, features = row
    return Record(
        collection=collection,
        filepath=filepath,
        seq=seq,
        signatures=signatures_from_bytes(sig),
        metadata=read_metadata(metadata),
        metadata_seq=None if metadata_seq == seq else metadata_seq,
        added=added,
        width=width,
        height=height,
        sha256=sha256,
        url=url,
        features=features,
    )


def read_metadata(text: str | None) -> Mapping[str, Any] | None:
    """Return the metadata in a row's text."""
    metadata: Mapping[str, Any] | None = None if text is None else json.loads(text)
    return metadata
