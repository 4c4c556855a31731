"""The table of patches: the history of each patched filepath, also of those without an image."""

import json
import sqlite3

from common.store.patches import History, history_of

# `added` is the time of the last patch.
_TABLE = """
CREATE TABLE patches (
    collection INTEGER NOT NULL,
    path TEXT NOT NULL,
    added INTEGER NOT NULL,
    history TEXT NOT NULL,
    PRIMARY KEY (collection, path)
) STRICT, WITHOUT ROWID
"""
CREATE = (_TABLE, "CREATE INDEX patches_added ON patches (added)")
_READ = "SELECT history FROM patches WHERE collection = ? AND path = ?"
_WRITE = """
INSERT INTO patches (collection, path, added, history) VALUES (?, ?, ?, ?)
ON CONFLICT (collection, path) DO UPDATE SET added = excluded.added, history = excluded.history
"""
_PURGE = """
DELETE FROM patches WHERE (collection, path) IN (
    SELECT collection, path FROM patches WHERE added < ? ORDER BY added LIMIT ?
)
"""


def read(db: sqlite3.Connection, collection: int, filepath: str) -> History | None:
    """Return the history of a filepath; None without a patch."""
    row = db.execute(_READ, [collection, filepath]).fetchone()
    return None if row is None else history_of(json.loads(row[0]))


def write(db: sqlite3.Connection, collection: int, filepath: str, history: History, *, added: int) -> None:
    """Write the history of a filepath, whose last patch was added at this time."""
    db.execute(_WRITE, [collection, filepath, added, json.dumps(history.to_json(), allow_nan=False)])


def purge(db: sqlite3.Connection, *, before: int, limit: int) -> int:
    """Delete the histories without a patch since `before`, in a transaction; return their number."""
    return db.execute(_PURGE, [before, limit]).rowcount
