"""The embedded store with several processes: no acknowledged write is lost, and every process finds it."""

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from common.errors import StoreError, StoreUnavailable, StoreUnusable
from common.images.signature import LENGTH
from common.store.base import Tombstone
from common.store.sqlite import SqliteStore
from common.store.sqlite.tables import SCHEMA_VERSION
from support.records import record, signature

# It prints the sequence numbers of each acknowledged write on a line.
WRITER = """
import sys
from pathlib import Path
import numpy as np
from common.images.signature import LENGTH
from common.store.base import Record
from common.store.sqlite import SqliteStore
path, name, seq = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = SqliteStore(path)
store.prepare()
while True:
    rows = np.random.default_rng(seq).integers(-2, 3, (5, LENGTH)).astype(np.int8)
    store.put([
        Record(filepath=f"{name}/{seq + n}.jpg", seq=seq + n, signatures=(row,), added=0, width=1, height=1)
        for n, row in enumerate(rows)
    ])
    print(*range(seq, seq + 5), flush=True)
    seq += 5
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "match.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def write_until_killed(path: Path, name: str, seq: int, *, lines: int) -> set[str]:
    """Run a writer, kill it after some lines, and return the filepaths that it reported as stored."""
    command = [sys.executable, "-c", WRITER, str(path), name, str(seq)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        reported = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        reported += [line for line in writer.stdout if line.endswith("\n")]
    return {f"{name}/{seq}.jpg" for line in reported for seq in line.split()}


@pytest.mark.slow
def test_writers_that_are_killed_lose_nothing_acknowledged(path: Path, store: SqliteStore) -> None:
    acknowledged: set[str] = set()

    with ThreadPoolExecutor(2) as pool:
        for life in range(5):
            lives = [
                pool.submit(write_until_killed, path, name, 1 + life * 100_000, lines=10 + 20 * life)
                for name in ("one", "two")
            ]
            acknowledged |= set().union(*(life.result() for life in lives))

    assert len(acknowledged) >= 2 * 5 * (10 + 30 + 50 + 70 + 90)
    assert acknowledged <= set(store.filepaths(offset=0, limit=10**9).filepaths)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_searches_follow_what_other_processes_write(path: Path, store: SqliteStore) -> None:
    store.prepare()
    assert store.candidates(np.ones((1, LENGTH), np.int8), limit=10) == [[]]

    acknowledged = write_until_killed(path, "one", 1, lines=20)

    rows = np.random.default_rng(1).integers(-2, 3, (5, LENGTH)).astype(np.int8)
    candidates = store.candidates(rows, limit=1)
    assert [row[0].filepath for row in candidates] == [f"one/{seq}.jpg" for seq in range(1, 6)]
    assert store.count() >= len(acknowledged)


def test_several_processes_may_prepare_at_once(path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        written = list(pool.map(lambda n: write_until_killed(path, f"w{n}", n * 1_000 + 1, lines=1), range(6)))

    assert all(len(paths) >= 5 for paths in written)


def test_an_older_request_that_commits_later_is_found(path: Path, store: SqliteStore) -> None:
    store.prepare()
    other = SqliteStore(path)
    store.put([record("new.jpg", 1_000)])
    assert len(store.candidates(np.ones((1, LENGTH), np.int8), limit=10)[0]) == 1

    other.put([record("old.jpg", 1)])

    assert store.candidates(signature(1)[None], limit=1)[0][0].filepath == "old.jpg"
    other.close()


def test_purged_tombstone_of_another_process_is_noticed(path: Path, store: SqliteStore) -> None:
    store.prepare()
    store.put([record("cat.jpg", 1)])
    query = signature(1)[None]
    store.candidates(query, limit=10)
    other = SqliteStore(path)

    other.put([Tombstone(filepath="cat.jpg", seq=2, added=2)])
    other.purge(before=3, limit=10)

    assert store.candidates(query, limit=10) == [[]]
    assert not len(store._index.current().tail)
    other.close()


def test_writer_that_waits_too_long_is_an_outage(path: Path) -> None:
    store = SqliteStore(path, busy_timeout_s=0.05)
    store.prepare()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable, match="locked"):
        store.put([record("cat.jpg", 1)])

    assert store.count() == 0
    assert store.health().writes
    blocker.close()
    store.put([record("cat.jpg", 1)])
    store.close()


def test_full_disk_is_an_outage_and_stores_nothing(store: SqliteStore) -> None:
    store.prepare()
    with store._connections.lend() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 3}")

    with pytest.raises(StoreUnavailable, match="full"):
        store.put([record(f"{seq}.jpg", seq) for seq in range(1, 100)])

    assert store.count() == 0
    store.put([record("cat.jpg", 1)])


OTHER_TABLES = f"CREATE TABLE visits (url TEXT); PRAGMA user_version = {SCHEMA_VERSION}"
UNUSABLE = {
    "a damaged file": ("", "not a database"),
    "a newer version": ("PRAGMA user_version = 99", "newer"),
    "tables of another program": ("CREATE TABLE images (name TEXT)", "another program"),
    "the same version number": (
        f"CREATE TABLE visits (url TEXT); PRAGMA user_version = {SCHEMA_VERSION}",
        "no such table",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_file_is_an_outage_and_unchanged(path: Path, store: SqliteStore, name: str) -> None:
    script, reason = UNUSABLE[name]
    path.write_bytes(b"" if script else b"not a database" * 1000)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(script)
    before = path.read_bytes()

    with pytest.raises(StoreUnusable, match=reason):
        store.put([record("cat.jpg", 1)])

    assert path.read_bytes() == before
    assert not store.health().reads


@pytest.mark.parametrize("name", [name for name in UNUSABLE if name != "the same version number"])
def test_unusable_file_is_not_prepared(path: Path, store: SqliteStore, name: str) -> None:
    script, reason = UNUSABLE[name]
    path.write_bytes(b"" if script else b"not a database" * 1000)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(script)
    before = path.read_bytes()

    with pytest.raises(StoreUnusable, match=reason):
        store.prepare()

    assert path.read_bytes() == before


def test_closed_store_reports_that_it_is_closed(store: SqliteStore) -> None:
    store.prepare()
    store.count()

    store.close()

    assert not store.health().reads
    with pytest.raises(StoreError, match="closed"):
        store.count()
