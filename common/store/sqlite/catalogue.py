"""The catalogue of collections: a number for each name, the count of its images and its quota."""

import sqlite3
from collections.abc import Iterable, Mapping

from common.errors import StoreError
from common.store.base import DEFAULT_COLLECTION, Collection
from common.store.sqlite.blocks import COLLECTIONS_MAX

# `listed`: it has an entry. A row without an entry belongs to the images, tombstones or patches of its number, which is
# never used again (AUTOINCREMENT).
TABLE = """
CREATE TABLE collections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    listed INTEGER NOT NULL DEFAULT 0,
    max_images INTEGER,
    images INTEGER NOT NULL DEFAULT 0
) STRICT
"""
DEFAULT = 1
_DEFAULT_ROW = f"INSERT INTO collections (id, name, listed) VALUES ({DEFAULT}, '{DEFAULT_COLLECTION}', 1)"  # noqa: S608 - no input
CREATE = (TABLE, _DEFAULT_ROW)
COUNT_DEFAULT = "UPDATE collections SET images = (SELECT count(*) FROM images WHERE deleted = 0)"
_EXISTING = "SELECT name, images, max_images FROM collections WHERE (listed OR images)"
_CREATE = "INSERT INTO collections (name, listed) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET listed = 1"
_PUT = """
INSERT INTO collections (name, listed, max_images) VALUES (?1, 1, ?2)
ON CONFLICT (name) DO UPDATE SET listed = 1, max_images = ?2
"""
_UNLIST = f"UPDATE collections SET listed = (id = {DEFAULT}), max_images = NULL WHERE name = ? AND images = 0"  # noqa: S608 - no input
_REMOVE_UNUSED = """
DELETE FROM collections
WHERE listed = 0 AND NOT EXISTS (SELECT 1 FROM images WHERE collection = collections.id)
    AND NOT EXISTS (SELECT 1 FROM patches WHERE collection = collections.id)
"""


def number(db: sqlite3.Connection, name: str) -> int | None:
    """Return the number of a collection; None if it has never existed."""
    if name == DEFAULT_COLLECTION:
        return DEFAULT
    row = db.execute("SELECT id FROM collections WHERE name = ?", [name]).fetchone()
    return None if row is None else _usable(row[0])


def numbers(db: sqlite3.Connection, names: Iterable[str]) -> dict[str, int]:
    """Return the numbers of collections, in a transaction; a new one gets the next number."""
    return {name: number(db, name) or _add(db, name) for name in set(names)}


def count(db: sqlite3.Connection, number: int | None) -> int:
    """Return the number of images of a collection, by its number; 0 without a number."""
    row = db.execute("SELECT images FROM collections WHERE id = ?", [number]).fetchone()
    return 0 if row is None else int(row[0])


def add_counts(db: sqlite3.Connection, added: Mapping[int, int]) -> None:
    """Add to the counts of images, by the collections' numbers."""
    rows = [(count, collection) for collection, count in added.items() if count]
    db.executemany("UPDATE collections SET images = images + ? WHERE id = ?", rows)


def collections(db: sqlite3.Connection) -> list[Collection]:
    """Return all collections, by name."""
    return [_collection(*row) for row in db.execute(f"{_EXISTING} ORDER BY name")]


def collection(db: sqlite3.Connection, name: str) -> Collection | None:
    """Return one collection."""
    row = db.execute(f"{_EXISTING} AND name = ?", [name]).fetchone()
    return None if row is None else _collection(*row)


def create(db: sqlite3.Connection, name: str) -> None:
    """Add an entry, unless there is one."""
    db.execute(_CREATE, [name])


def put(db: sqlite3.Connection, name: str, *, max_images: int | None) -> None:
    """Add or change an entry."""
    db.execute(_PUT, [name, max_images])


def delete(db: sqlite3.Connection, name: str) -> bool:
    """Delete the entry of a collection without images, and return whether it was one."""
    if db.execute("SELECT 1 FROM collections WHERE name = ? AND images > 0", [name]).fetchone():
        return False
    db.execute(_UNLIST, [name])
    remove_unused(db)
    return True


def remove_unused(db: sqlite3.Connection) -> None:
    """Delete the rows without an entry, images, tombstones and patches."""
    db.execute(_REMOVE_UNUSED)


def _add(db: sqlite3.Connection, name: str) -> int:
    return _usable(db.execute("INSERT INTO collections (name) VALUES (?) RETURNING id", [name]).fetchone()[0])


def _usable(number: int) -> int:
    if number > COLLECTIONS_MAX:
        message = f"embedded store: more than {COLLECTIONS_MAX:,} collections were created"
        raise StoreError(message)
    return number


def _collection(name: str, images: int, max_images: int | None) -> Collection:
    return Collection(name=name, images=images, max_images=max_images)
