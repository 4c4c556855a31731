"""The embedded store migrates the tables of earlier versions, and refuses those of later ones."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from common.errors import StoreUnavailable, StoreUnusable
from common.images.signature import LENGTH
from common.store.base import Collection, Selection, Store, Verdict
from common.store.sqlite import SqliteStore
from support.records import deletion, patch, record, signature

# The tables of version 2, as its `prepare` created them.
VERSION_2 = """
PRAGMA journal_mode = WAL;
CREATE TABLE images (
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
CREATE INDEX images_changed ON images (change);
CREATE INDEX images_listed ON images (seq) WHERE deleted = 0;
CREATE INDEX images_deleted ON images (added) WHERE deleted = 1;
CREATE TABLE labels (
    label TEXT NOT NULL,
    image INTEGER NOT NULL,
    PRIMARY KEY (label, image)
) STRICT, WITHOUT ROWID;
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    change INTEGER NOT NULL,
    purged INTEGER NOT NULL
) STRICT;
INSERT INTO state VALUES (1, 12, 9);
PRAGMA user_version = 2;
"""
# The tables of version 3, with an image of the collection `shop`.
VERSION_3 = """
PRAGMA journal_mode = WAL;
CREATE TABLE images (
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
    UNIQUE (collection, path)
) STRICT;
CREATE TABLE labels (
    label TEXT NOT NULL,
    image INTEGER NOT NULL,
    PRIMARY KEY (label, image)
) STRICT, WITHOUT ROWID;
CREATE INDEX images_changed ON images (change);
CREATE INDEX images_listed ON images (collection, seq) WHERE deleted = 0;
CREATE INDEX images_deleted ON images (added) WHERE deleted = 1;
CREATE TABLE collections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    listed INTEGER NOT NULL DEFAULT 0,
    max_images INTEGER,
    images INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE local_features (image INTEGER PRIMARY KEY, features BLOB NOT NULL) STRICT;
CREATE TABLE segments (position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, change INTEGER NOT NULL) STRICT;
CREATE TABLE purged (id INTEGER PRIMARY KEY, collection INTEGER NOT NULL, change INTEGER NOT NULL) STRICT;
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), change INTEGER NOT NULL) STRICT;
INSERT INTO collections VALUES (1, 'default', 1, NULL, 0), (2, 'shop', 1, 10, 1);
INSERT INTO state VALUES (1, 3);
INSERT INTO labels VALUES ('["a","b"]', 1);
PRAGMA user_version = 3;
"""
INSERT_OF_VERSION_3 = """
INSERT INTO images VALUES (1, 2, 'cat.jpg', 7, 7, 3, 0, 0, 100, 640, 480, ?, NULL, 'http://h/cat.jpg', '{"a": "b"}')
"""
INSERT = """
INSERT INTO images (id, path, seq, change, deleted, added, width, height, sig, metadata)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
INSERT_OF_COLLECTION = """
INSERT INTO images (collection, path, seq, metadata_seq, change, deleted, added)
VALUES (?, 'framed.jpg', 50, 50, 50, 1, 0)
"""
# A row of version 3 without a digest and a source URL.
INSERT_WITHOUT_SOURCE = """
INSERT INTO images (path, seq, metadata_seq, change, deleted, added, width, height, sig)
VALUES ('cat.jpg', 7, 7, 1, 0, 100, 640, 480, ?)
"""
NEW_COLUMNS = """
SELECT path, metadata_seq, featureless, sha256, url, name
FROM images JOIN collections ON collection = collections.id ORDER BY path
"""
# It stops after some statements of the migration.
KILLED = """
import sqlite3, sys, time
from pathlib import Path
from common.store.sqlite import SqliteStore, tables
statements = list(tables._MIGRATION)
class Stop:
    def __iter__(self):
        yield from statements[:int(sys.argv[2])]
        print("stopped", flush=True)
        time.sleep(600)
tables._MIGRATION = Stop()
SqliteStore(Path(sys.argv[1])).prepare()
"""
# Images of version 2: one with two signatures, one featureless, one deleted, and the highest id was purged.
FRAMED = np.stack([signature(1), signature(2)])
PURGED_ID = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "match.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_2)
        rows = [
            (1, "framed.jpg", 7, 2, 0, 100, 640, 480, FRAMED.tobytes(), json.dumps({"a": ["b"]})),
            (2, "blank.jpg", 8, 3, 0, 101, 10, 20, bytes(LENGTH), None),
            (3, "gone.jpg", 9, 4, 1, 102, None, None, None, None),
            (PURGED_ID, "purged.jpg", 10, 9, 1, 103, None, None, None, None),
        ]
        db.executemany(INSERT, rows)
        db.execute("DELETE FROM images WHERE id = ?", [PURGED_ID])
        db.execute("INSERT INTO labels VALUES (?, 1)", ['["a","b"]'])
        db.commit()
    return path


@pytest.fixture
def migrated(build_sqlite: Callable[[], Store], path: Path) -> Iterator[Store]:
    assert path.exists()
    store = build_sqlite()
    store.prepare()
    yield store
    store.close()


def assert_all_records(store: Store) -> None:
    records = store.records(["framed.jpg", "blank.jpg", "gone.jpg"])
    framed, blank = records.pop("framed.jpg"), records.pop("blank.jpg")
    assert not records
    assert np.array_equal(framed.signatures, FRAMED)
    assert (framed.seq, framed.added, framed.width, framed.height, framed.metadata) == (7, 100, 640, 480, {"a": ["b"]})
    assert (blank.seq, blank.added, blank.width, blank.height, blank.metadata) == (8, 101, 10, 20, None)
    assert [(record.sha256, record.url) for record in (framed, blank)] == [(None, None), (None, None)]
    assert store.filepaths(offset=0, limit=9, selection=Selection(where={"a": "b"})).filepaths == ["framed.jpg"]
    assert [images[0].filepath for images in store.candidates(FRAMED, limit=5)] == ["framed.jpg", "framed.jpg"]
    assert store.collections() == [Collection(name="default", images=2)]
    assert store.count() == 2


def test_records_of_version_2_are_kept(migrated: Store) -> None:
    assert_all_records(migrated)


def test_deletions_of_version_2_outrank_earlier_requests(migrated: Store) -> None:
    verdicts = [written.verdict for written in migrated.put([record("gone.jpg", 8), deletion("blank.jpg", 7)])]

    assert verdicts == [Verdict.SUPERSEDED, Verdict.SUPERSEDED]


def test_migrated_tables_accept_writes(migrated: Store, path: Path) -> None:
    migrated.put([record("blank.jpg", 20), record("new.jpg", 21), deletion("framed.jpg", 22)])

    assert migrated.filepaths(offset=0, limit=9).filepaths == ["blank.jpg", "new.jpg"]
    assert [
        images[0].filepath for images in migrated.candidates(np.stack([signature(20), signature(21)]), limit=1)
    ] == [
        "blank.jpg",
        "new.jpg",
    ]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT id FROM images WHERE path = 'new.jpg'").fetchone()[0] > PURGED_ID
        assert db.execute("SELECT change FROM state").fetchone() == (13,)


def test_migration_fills_the_new_columns(migrated: Store, path: Path) -> None:
    new = record("new.jpg", 21, sha256=bytes(32), url="http://example.org/new.jpg")
    migrated.put([new, record("new-blank.jpg", 22, np.zeros(LENGTH, np.int8))])

    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(NEW_COLUMNS)
        assert rows.fetchall() == [
            ("blank.jpg", 8, 1, None, None, "default"),
            ("framed.jpg", 7, 0, None, None, "default"),
            ("gone.jpg", 9, 0, None, None, "default"),
            ("new-blank.jpg", 22, 1, None, None, "default"),
            ("new.jpg", 21, 0, bytes(32), "http://example.org/new.jpg", "default"),
        ]


def test_rows_without_a_source_are_read_and_replaced(build_sqlite: Callable[[], Store], path: Path) -> None:
    path.unlink()
    with closing(build_sqlite()) as store:
        store.prepare()
        with closing(sqlite3.connect(path)) as db:
            db.execute(INSERT_WITHOUT_SOURCE, [signature(1).tobytes()])
            db.commit()

        before = store.records(["cat.jpg"])["cat.jpg"]
        store.put([record("cat.jpg", 8, sha256=bytes(32), url="http://example.org/cat.jpg")])
        after = store.records(["cat.jpg"])["cat.jpg"]

    assert (before.seq, before.sha256, before.url) == (7, None, None)
    assert (after.seq, after.sha256, after.url) == (8, bytes(32), "http://example.org/cat.jpg")


def test_filepath_is_unique_within_its_collection(migrated: Store, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(INSERT_OF_COLLECTION, [2])
        with pytest.raises(sqlite3.IntegrityError, match="collection"):
            db.execute(INSERT_OF_COLLECTION, [1])
        db.commit()

    assert_all_records(migrated)


def test_records_of_version_3_are_kept_and_patched(build_sqlite: Callable[[], Store], path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_3)
        db.execute(INSERT_OF_VERSION_3, [signature(1).tobytes()])
        db.commit()

    with closing(build_sqlite()) as store:
        store.prepare()
        before = store.records(["cat.jpg"], collection="shop")["cat.jpg"]
        changes = [patch("cat.jpg", 9, {"a": "c"}, collection="shop"), patch("dog.jpg", 9, {"d": 1}, collection="shop")]
        store.put([*changes, record("dog.jpg", 8, collection="shop")])

        records = store.records(["cat.jpg", "dog.jpg"], collection="shop")
        assert (before.seq, before.metadata_seq, before.url) == (7, None, "http://h/cat.jpg")
        assert before.metadata == {"a": "b"}
        assert (records["cat.jpg"].metadata, records["dog.jpg"].metadata) == ({"a": "c"}, {"d": 1})
        assert store.collections()[1] == Collection(name="shop", images=2, max_images=10)
        [[candidate]] = store.candidates(signature(1)[None], limit=1, selection=Selection(collection="shop"))
        assert candidate.filepath == "cat.jpg"


def test_labels_of_version_1_are_added(build_sqlite: Callable[[], Store], path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TABLE labels; PRAGMA user_version = 1;")

    with closing(build_sqlite()) as store:
        store.prepare()

        assert_all_records(store)


@pytest.mark.parametrize("statements", [1, 2, 5, 99])
def test_killed_migration_changes_nothing(build_sqlite: Callable[[], Store], path: Path, statements: int) -> None:
    command = [sys.executable, "-c", KILLED, str(path), str(statements)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
        process.send_signal(signal.SIGKILL)
    with closing(sqlite3.connect(path)) as db:
        version, count = db.execute("PRAGMA user_version").fetchone(), db.execute("SELECT purged FROM state").fetchone()

    with closing(build_sqlite()) as store:
        store.prepare()

        assert (version, count) == ((2,), (9,))
        assert_all_records(store)


def test_tables_are_unavailable_until_they_are_migrated(build_sqlite: Callable[[], Store], path: Path) -> None:
    assert path.exists()
    with closing(build_sqlite()) as store:
        with pytest.raises(StoreUnavailable, match="earlier version"):
            store.count()

        store.prepare()

        assert store.count() == 2


def test_every_call_refuses_tables_of_a_newer_version(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.prepare()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 5")

    with closing(SqliteStore(path)) as store:
        for call in (store.prepare, store.count, lambda: store.candidates(FRAMED, limit=1)):
            with pytest.raises(StoreUnusable, match=r"newer version of Match \(schema version 5\)"):
                call()
