"""SQLite's plans of frequent statements: each searches an index, none reads all images."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from common.store.sqlite import tables

NO_IMAGES = "[]"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "match.db", isolation_level=None)) as db:
        tables.create(db)
        yield db


def plan(db: sqlite3.Connection, sql: str, *parameters: str) -> str:
    return "\n".join(row[3] for row in db.execute("EXPLAIN QUERY PLAN " + sql, parameters))


@pytest.mark.parametrize("where", [None, {"a": "b"}, {"a": "b", "c": "d"}])
def test_candidates_are_read_by_id(db: sqlite3.Connection, where: Mapping[str, str] | None) -> None:
    sql, needed = tables.candidates(where)

    assert "images USING INTEGER PRIMARY KEY" in plan(db, sql, NO_IMAGES, *needed)


@pytest.mark.parametrize("sql", [tables.RECORDS, tables.METADATA])
def test_records_are_read_by_filepath(db: sqlite3.Connection, sql: str) -> None:
    assert "images USING INDEX sqlite_autoindex_images_1 (collection=? AND path=?)" in plan(db, sql, NO_IMAGES)


def test_filters_read_only_images_with_the_label(db: sqlite3.Connection) -> None:
    keep, needed = tables.condition({"a": "b"})

    assert "images USING INTEGER PRIMARY KEY" in plan(db, "SELECT id FROM images WHERE " + keep, *needed)  # noqa: S608 - no input


def test_lists_read_the_index_of_their_order(db: sqlite3.Connection) -> None:
    keep, _ = tables.condition(None)

    steps = plan(db, "SELECT path FROM images WHERE " + keep + " AND seq > 7 ORDER BY seq")  # noqa: S608 - no input

    assert steps == "SEARCH images USING INDEX images_listed (collection=? AND seq>?)"
