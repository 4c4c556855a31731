"""SQLite's plans of frequent statements: each searches an index, none reads all images."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import StoreError
from common.store.base import DEFAULT_COLLECTION, Selection
from common.store.sqlite import catalogue, selections, tables
from support.records import record

NO_IMAGES = "[]"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "match.db", isolation_level=None)) as db:
        tables.create(db)
        yield db


def plan(db: sqlite3.Connection, sql: str, *parameters: object) -> str:
    steps = "\n".join(row[3] for row in db.execute("EXPLAIN QUERY PLAN " + sql, parameters))
    # Later versions of SQLite name an index so if it has all columns of the result.
    return steps.replace("USING COVERING INDEX", "USING INDEX")


@pytest.mark.parametrize("where", [{}, {"a": "b"}, {"a": "b", "c": "d"}])
@pytest.mark.parametrize("prefix", ["", "a/"])
def test_candidates_are_read_by_id(db: sqlite3.Connection, where: Mapping[str, str], prefix: str) -> None:
    sql, parameters = selections.candidates([1], 1, Selection(where=where, filepath_prefix=prefix))

    assert "images USING INTEGER PRIMARY KEY" in plan(db, sql, *parameters)


@pytest.mark.parametrize("sql", [tables.RECORDS, tables.METADATA])
def test_records_are_read_by_filepath(db: sqlite3.Connection, sql: str) -> None:
    assert "images USING INDEX sqlite_autoindex_images_1 (collection=? AND path=?)" in plan(
        db, sql, DEFAULT_COLLECTION, NO_IMAGES
    )


@pytest.mark.parametrize(("few", "index"), [(4, "INDEX images_listed"), (3, "INTEGER PRIMARY KEY")])
def test_filters_read_the_collection_or_the_label(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, few: int, index: str
) -> None:
    monkeypatch.setattr(selections, "FEW", few)
    tables.write(db, [record(f"{seq}", seq) for seq in range(4)], 1)

    keep, parameters = selections.condition(db, 1, Selection(where={"a": "b", "c": "d"}))

    assert f"images USING {index}" in plan(db, "SELECT id FROM images WHERE " + keep, *parameters)  # noqa: S608 - no input


def test_lists_read_the_index_of_their_order(db: sqlite3.Connection) -> None:
    keep, parameters = selections.condition(db, 1, Selection())

    steps = plan(db, "SELECT path FROM images WHERE " + keep + " AND seq > 7 ORDER BY seq", *parameters)  # noqa: S608 - no input

    assert steps == "SEARCH images USING INDEX images_listed (collection=? AND seq>?)"


@pytest.mark.parametrize(("few", "index"), [(4, "sqlite_autoindex_images_1"), (3, "images_listed")])
def test_few_filepaths_are_read_by_the_index_of_prefixes(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, few: int, index: str
) -> None:
    monkeypatch.setattr(selections, "FEW", few)
    tables.write(
        db, [record(f"a/{seq}", seq) for seq in range(4)] + [record(f"b/{seq}", 9 + seq) for seq in range(9)], 1
    )

    keep, parameters = selections.condition(db, 1, Selection(filepath_prefix="a/"))

    assert index in plan(db, "SELECT path FROM images WHERE " + keep + " ORDER BY seq", *parameters)  # noqa: S608 - no input


def test_numbers_of_collections_beyond_the_largest_are_errors(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "COLLECTIONS_MAX", 2)
    catalogue.create(db, "created")
    catalogue.create(db, "beyond")

    with pytest.raises(StoreError, match="more than 2 collections"):
        tables.write(db, [record("cat.jpg", 1, collection="beyond")], 1)
    with pytest.raises(StoreError, match="more than 2 collections"):
        tables.write(db, [record("cat.jpg", 1, collection="written")], 1)
