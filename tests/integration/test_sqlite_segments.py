"""Segments of the embedded store change no result, also after damage, kills and restored backups."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.images.signature import Signature
from common.store.base import DEFAULT_COLLECTION, Record, Selection
from common.store.sqlite import SqliteStore, view
from support.records import FEATURELESS, deletion, features_of, record, signature
from support.segments import folder, make_small, segment_files, wait_for_build

# It stops in one step of the build, and reports that.
STOPPED = """
import sys, time
from pathlib import Path
from common.store.sqlite import SqliteStore, builder, segments, signature_index
from support.records import signature
path, where = Path(sys.argv[1]), sys.argv[2]
def stop(*args, **options):
    print("stopped", flush=True)
    time.sleep(600)
signature_index.REBUILT = builder.REBUILT = 25
builder.PIECE = 40
if where == "write":
    segments.os.fsync = stop
elif where == "rename":
    segments._sync_folder = stop
else:
    builder.remove_segments = stop
SqliteStore(path).candidates(signature(1)[None], limit=1)
"""
# A process that adds, overwrites, deletes and searches; it prints each acknowledged state.
BUSY = """
import sys
from pathlib import Path
import numpy as np
from common.store.sqlite import SqliteStore, builder, signature_index
from support.records import deletion, record, signature
path, name, seq = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
signature_index.TAIL = 40
signature_index.REBUILT = builder.REBUILT = 150
store = SqliteStore(path)
chance = np.random.default_rng(seq)
while True:
    paths = [f"{name}/{number}.jpg" for number in chance.choice(200, 10, replace=False)]
    kinds = [deletion if chance.random() < 0.2 else record for _ in paths]
    items = [kind(path, seq + n) for n, (kind, path) in enumerate(zip(kinds, paths))]
    states = [f"{item.filepath}={item.seq if kind is record else 0}" for kind, item in zip(kinds, items)]
    print("begin", *states, flush=True)
    store.put(items)
    print("end", flush=True)
    seq += 10
    store.candidates(signature(seq)[None], limit=3)
"""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch, {(view, "JOINED"): 20})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "match.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    store.prepare()
    yield store
    store.close()


def best(store: SqliteStore, *seqs: int) -> list[str]:
    """Return the filepath of the image that is nearest to each signature."""
    queries = np.array([signature(seq) for seq in seqs])
    return [images[0].filepath for images in store.candidates(queries, limit=1)]


def fill(store: SqliteStore, count: int) -> None:
    store.put([record(f"{seq}.jpg", seq, features=features_of(seq)) for seq in range(1, count + 1)])


def reopened_finds_all(path: Path, count: int) -> bool:
    with closing(SqliteStore(path)) as store:
        seqs = range(1, count + 1)
        return best(store, *seqs) == [f"{seq}.jpg" for seq in seqs]


def start(script: str, path: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, str(path), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_first_search_writes_segments_of_many_images(path: Path, store: SqliteStore) -> None:
    fill(store, 60)

    assert best(store, 1, 60) == ["1.jpg", "60.jpg"]
    assert len(segment_files(path)) > 1
    assert len(store._index.current().tail) == 0


def test_processes_share_the_segments_of_one(path: Path, store: SqliteStore) -> None:
    fill(store, 60)
    best(store, 1)
    files = segment_files(path)

    assert reopened_finds_all(path, 60)

    assert segment_files(path) == files


def test_number_of_segments_stays_logarithmic(path: Path, store: SqliteStore) -> None:
    for seq in range(1, 161):
        store.put([record(f"{seq}.jpg", seq)])
        best(store, seq)
        wait_for_build(store)
    store.close()

    assert reopened_finds_all(path, 160)
    assert 1 <= len(segment_files(path)) <= 6


def test_segments_of_overwritten_images_do_not_grow(store: SqliteStore) -> None:
    for seq in range(1, 161):
        store.put([record(f"{seq % 20}.jpg", seq)])
        assert best(store, seq) == [f"{seq % 20}.jpg"]

    assert sum(len(part.block) for part in store._index.current().blocks) < 100


@pytest.mark.parametrize("written", ["tail", "merged", "rebuilt"])
@pytest.mark.parametrize("purged", [False, True])
def test_older_states_in_segments_stay_hidden(path: Path, store: SqliteStore, written: str, *, purged: bool) -> None:
    fill(store, 60)
    best(store, 1)
    files = segment_files(path)
    store.put([deletion("1.jpg", 101), record("2.jpg", 102), record("3.jpg", 103, FEATURELESS)])
    if purged:
        store.purge(before=2**50, limit=9)
    store.put([record(f"{seq}.jpg", seq) for seq in range(200, 200 + {"tail": 1, "merged": 9, "rebuilt": 40}[written])])
    store._index.current()
    wait_for_build(store)
    store.close()

    with closing(SqliteStore(path)) as other:
        past = np.stack([signature(seq) for seq in (1, 2, 3)])
        near = other.candidates(past, limit=5, max_distance=0.1)
        counts = [len(candidates) for candidates in other.candidates(past, limit=1)]

    assert near == [[], [], []]
    assert counts == [1, 1, 1]
    assert bool(set(segment_files(path)) - set(files)) is (written != "tail")


@pytest.mark.parametrize("harm", ["absent", "folder", "truncated", "damaged", "older"])
def test_unusable_segments_are_written_again(path: Path, store: SqliteStore, harm: str) -> None:
    fill(store, 60)
    best(store, 1)
    first = segment_files(path)[0]
    if harm == "absent":
        first.unlink()
    elif harm == "folder":
        shutil.rmtree(folder(path))
    elif harm == "truncated":
        first.write_bytes(first.read_bytes()[:-9])
    elif harm == "damaged":
        data = bytearray(first.read_bytes())
        data[5_000] ^= 255
        first.write_bytes(data)
    else:
        shutil.copy(segment_files(path)[1], first)

    assert reopened_finds_all(path, 60)

    assert first not in segment_files(path)
    assert reopened_finds_all(path, 60)


def test_processes_that_follow_survive_new_segments(path: Path, store: SqliteStore) -> None:
    with closing(SqliteStore(path)) as other:
        for seq in range(1, 80):
            store.put([record(f"{seq}.jpg", seq)])
            assert best(other, seq) == [f"{seq}.jpg"]
            assert best(store, seq) == [f"{seq}.jpg"]


@pytest.mark.parametrize("writes", [0, 1, 40])
def test_restored_backup_finds_nothing_newer(path: Path, store: SqliteStore, writes: int) -> None:
    fill(store, 60)
    best(store, 1)
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    store.put([record(f"{seq}.jpg", 100 + seq) for seq in range(1, 41)])
    best(store, 1)
    store.close()
    path.with_name("match.db-wal").unlink(missing_ok=True)
    path.with_name("match.db-shm").unlink(missing_ok=True)
    shutil.copy(backup, path)

    with closing(SqliteStore(path)) as restored:
        # As many transactions as were lost, so that the numbers of changes are equal again.
        for seq in range(1, writes + 1):
            restored.put([record(f"{seq}.jpg", 200 + seq)])

        assert best(restored, *range(41, 61)) == [f"{seq}.jpg" for seq in range(41, 61)]
        assert [best(restored, 200 + seq) for seq in range(1, writes + 1)] == [
            [f"{seq}.jpg"] for seq in range(1, writes + 1)
        ]
        (candidates,) = restored.candidates(signature(101)[None], limit=99, max_distance=0.1)
        assert candidates == []


def test_folder_that_cannot_be_written_costs_only_memory(
    path: Path, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    folder(path).write_text("a file in place of the folder")
    fill(store, 60)

    assert best(store, 1, 60) == ["1.jpg", "60.jpg"]
    assert "read into memory" in caplog.text


@pytest.mark.parametrize("where", ["write", "rename", "remove"])
def test_killed_build_loses_nothing(path: Path, store: SqliteStore, where: str) -> None:
    fill(store, 60)
    with start(STOPPED, path, where) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
        process.send_signal(signal.SIGKILL)

    assert best(store, *range(1, 61)) == [f"{seq}.jpg" for seq in range(1, 61)]
    assert len(store.candidates_by_words(np.arange(100, dtype=np.uint32), limit=99)) == 60
    store.put([record("new.jpg", 1_000)])
    store.put([record(f"{seq}.jpg", seq) for seq in range(2_000, 2_040)])
    best(store, 1)
    store.close()
    assert not list(folder(path).glob("*.tmp"))
    with closing(sqlite3.connect(path)) as db:
        names = {f"{name}.segment" for (name,) in db.execute("SELECT name FROM segments")}
    assert {file.name for file in segment_files(path)} == names


@pytest.mark.slow
def test_killed_processes_leave_exact_results(path: Path, store: SqliteStore) -> None:
    states: dict[str, set[int]] = {}
    sure: dict[str, int] = {}

    def live(name: str, seq: int, lines: int) -> list[str]:
        with start(BUSY, path, name, str(seq)) as process:
            assert process.stdout is not None
            read = [process.stdout.readline() for _ in range(lines)]
            process.kill()
            return read + [line for line in process.stdout if line.endswith("\n")]

    with ThreadPoolExecutor(2) as pool:
        for life in range(4):
            lines = [
                pool.submit(live, name, first + life * 100_000, 60) for name, first in (("one", 1), ("two", 50_001))
            ]
            for each in lines:
                pending: dict[str, int] = {}
                for line in each.result():
                    word, *pairs = line.split()
                    if word == "begin":
                        pending = {key: int(seq) for key, seq in (pair.split("=") for pair in pairs)}
                    else:
                        sure |= pending
                        pending = {}
                for key, seq in pending.items():
                    states.setdefault(key, set()).add(seq)

    with closing(SqliteStore(path)) as fresh:
        stored = fresh.records(list(sure))
        for key, seq in sure.items():
            actual = stored[key].seq if key in stored else 0
            assert actual == seq or actual in states.get(key, set())
        seqs = sorted(item.seq for item in stored.values())
        expected = {item.seq: item.filepath for item in stored.values()}
        for reader in (fresh, store):
            assert best(reader, *seqs) == [expected[seq] for seq in seqs]


COLLECTIONS = [DEFAULT_COLLECTION, "shop", "blog"]
FILEPATHS = [f"{number}.jpg" for number in range(120)]


def collection_of(filepath: str) -> str:
    """Return the collection of the machine's images with this filepath."""
    return COLLECTIONS[int(filepath.removesuffix(".jpg")) % len(COLLECTIONS)]


class Machine(RuleBasedStateMachine):
    """Three processes write and search one store; segments and backups are removed, damaged and restored."""

    filepaths = st.sampled_from(FILEPATHS)
    readers = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp(prefix="match-segments-"))
        self.path = self.folder / "match.db"
        self.seq = 0
        self.model: dict[str, tuple[int, list[Signature]]] = {}
        self.backup: dict[str, tuple[int, list[Signature]]] | None = None
        self.stores: list[SqliteStore] = []

    @initialize()
    def prepare(self) -> None:
        self.stores = [SqliteStore(self.path) for _ in range(3)]
        self.stores[0].prepare()
        # More than a rebuild takes into memory, so that segments exist from the beginning.
        self.put(0, FILEPATHS, 2)
        self.search(0, DEFAULT_COLLECTION)

    @rule(writer=readers, filepaths=st.lists(filepaths, min_size=3, max_size=12, unique=True), kind=st.integers(0, 5))
    def put(self, writer: int, filepaths: list[str], kind: int) -> None:
        items: list[Record] = []
        for filepath in filepaths:
            self.seq += 1
            signatures = [signature(self.seq)] if kind else [FEATURELESS]
            if kind == 1:
                signatures.append(signature(-self.seq % 2**32))
            features = features_of(self.seq, 2**20 - 1) if self.seq % 4 else None
            name = collection_of(filepath)
            items.append(record(filepath, self.seq, *signatures, features=features, collection=name))
            self.model[filepath] = (self.seq, [one for one in signatures if one.any()])
        self.stores[writer].put(items)

    @rule(reader=readers)
    def follow(self, reader: int) -> None:
        index = self.stores[reader]._index
        index.current()
        if thread := index._thread:
            thread.join()

    @rule(writer=readers, filepaths=st.lists(filepaths, min_size=1, max_size=4, unique=True))
    def delete(self, writer: int, filepaths: list[str]) -> None:
        self.seq += 1
        self.stores[writer].put(
            [deletion(filepath, self.seq, collection=collection_of(filepath)) for filepath in filepaths]
        )
        for filepath in filepaths:
            self.model.pop(filepath, None)

    @rule(writer=readers, limit=st.integers(1, 9))
    def purge(self, writer: int, limit: int) -> None:
        self.stores[writer].purge(before=2**50, limit=limit)

    @rule(reader=readers, name=st.sampled_from(COLLECTIONS))
    def search(self, reader: int, name: str) -> None:
        store, selection = self.stores[reader], Selection(collection=name)
        model = self.images_of(name)
        everything = {filepath for filepath, (_, signatures) in model.items() if signatures}
        expected = [(filepath, one) for filepath, (_, signatures) in model.items() for one in signatures]
        if expected:
            results = store.candidates(np.array([one for _, one in expected]), limit=1, selection=selection)
            assert [images[0].filepath for images in results] == [filepath for filepath, _ in expected]
        (candidates,) = store.candidates(signature(0)[None], limit=200, selection=selection)
        assert {candidate.filepath for candidate in candidates} == everything
        # A signature that was overwritten or deleted, or is in another collection, must neither match nor take the
        # place of another.
        current = {seq for seq, _ in model.values()}
        past = np.array([signature(seq) for seq in range(max(0, self.seq - 99), self.seq + 1) if seq not in current])
        if len(past):
            assert store.candidates(past, limit=30, max_distance=0.1, selection=selection) == [[] for _ in past]
            counts = {len(candidates) for candidates in store.candidates(past, limit=1, selection=selection)}
            assert counts == {min(1, len(everything))}

    @rule(reader=readers, name=st.sampled_from(COLLECTIONS))
    def look_up(self, reader: int, name: str) -> None:
        with_words = {seq: filepath for filepath, (seq, _) in self.images_of(name).items() if seq % 4}
        for words in ([2**20 - 1], range(max(0, self.seq - 900), self.seq + 1)):
            candidates = self.stores[reader].candidates_by_words(
                np.array(words, np.uint32), limit=200, selection=Selection(collection=name)
            )
            expected = {filepath for seq, filepath in with_words.items() if seq in words or len(words) == 1}
            assert sorted(candidate.filepath for candidate in candidates) == sorted(expected)

    def images_of(self, name: str) -> dict[str, tuple[int, list[Signature]]]:
        return {filepath: image for filepath, image in self.model.items() if collection_of(filepath) == name}

    @rule(reader=readers)
    def restart(self, reader: int) -> None:
        self.stores[reader].close()
        self.stores[reader] = SqliteStore(self.path)

    @rule(number=st.integers(0, 3), length=st.none() | st.integers(0, 6_000))
    def harm(self, number: int, length: int | None) -> None:
        # A file that is mapped is replaced, not truncated: that would end the processes that read it.
        for file in segment_files(self.path)[number : number + 1]:
            data = file.read_bytes()
            file.unlink(missing_ok=True)
            if length is not None:
                file.write_bytes(data[:length])

    @rule()
    def back_up(self) -> None:
        with (
            closing(sqlite3.connect(self.path)) as source,
            closing(sqlite3.connect(self.folder / "backup.db")) as target,
        ):
            source.backup(target)
        self.backup = dict(self.model)

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore(self) -> None:
        for store in self.stores:
            store.close()
        for suffix in ("-wal", "-shm"):
            self.path.with_name(f"match.db{suffix}").unlink(missing_ok=True)
        shutil.copy(self.folder / "backup.db", self.path)
        assert self.backup is not None
        self.model = dict(self.backup)
        self.stores = [SqliteStore(self.path) for _ in range(3)]

    @invariant()
    def counts_are_exact(self) -> None:
        if self.stores:
            counts = {collection.name: collection.images for collection in self.stores[0].collections()}
            assert {name: counts.get(name, 0) for name in COLLECTIONS} == {
                name: len(self.images_of(name)) for name in COLLECTIONS
            }

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)


def test_results_follow_a_model_in_memory() -> None:
    Machine.TestCase.settings = settings(
        max_examples=10, stateful_step_count=25, deadline=None, phases=[Phase.generate]
    )
    run = Machine.TestCase()

    run.runTest()
