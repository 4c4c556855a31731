"""A cluster of several nodes: when nodes die under load, no write is lost and no reply is partial."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest
from elasticsearch import Elasticsearch
from redis import Redis

from common.errors import StoreUnavailable
from common.queue.items import AddItem
from common.queue.jobs import SINGLE_QUEUE
from common.queue.ledger import Ledger
from common.queue.sequence import SequenceNumbers
from common.queue.tasks import State
from common.store.base import Health, Record, Tombstone, Verdict
from common.store.elastic import ElasticStore, Shape
from dev.elasticsearch_cluster import Cluster
from dev.elasticsearch_node import why_not
from support import records
from support.tasks import enqueue
from support.waiting import wait_until
from workers.finishing import TaskFinisher
from workers.writer import Writer

# Three nodes start, two of them twice, perhaps on a busy machine.
pytestmark = pytest.mark.timeout(300)

SHARDS = 2
# Records that are written once and searched all the time.
STATIC = 200
# Filepaths that all writers overwrite, so that a newer request for one often overtakes an older one.
CHANGING = 40


@pytest.fixture(scope="module")
def running(give_up: Callable[[str], NoReturn]) -> Iterator[Cluster]:
    if reason := why_not():
        give_up(reason)
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    running.start()
    return running


@pytest.fixture
def leader(cluster: Cluster) -> Iterator[Elasticsearch]:
    with Elasticsearch(cluster.master.url) as client:
        yield client


@pytest.fixture
def store(cluster: Cluster, leader: Elasticsearch) -> Iterator[ElasticStore]:
    """An index with a complete copy on each data node, the default on several nodes."""
    shape = Shape(shards=SHARDS, vectors="flat")
    store = ElasticStore(cluster.url, index=f"test-{uuid.uuid4().hex[:12]}", timeout_s=10, shape=shape)
    store.prepare()
    wait_until(lambda: copies(leader, store) == 2 * SHARDS)
    yield store
    store.close()


def copies(client: Elasticsearch, store: ElasticStore) -> int:
    """Return the number of active shards, primaries and replicas."""
    return int(client.cluster.health(index=store.index)["active_shards"])


def until_it_answers(call: Callable[[], Any], *, within_s: float = 40) -> Any:
    """Repeat the call until the store is available, as workers do."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return call()
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def put(store: ElasticStore, item: Record | Tombstone) -> Verdict:
    (written,) = store.put([item])
    if written.verdict is Verdict.RETRY:
        raise StoreUnavailable(written.reason)
    return written.verdict


def record(filepath: str, seq: int) -> Record:
    """Return a record whose fields all follow from its seq."""
    return records.record(filepath, seq, metadata={"seq": seq}, width=seq % 1000)


def contents(stored: dict[str, Record]) -> dict[str, tuple[int, Any, bytes, int]]:
    return {
        path: (one.seq, one.metadata, one.signatures[0].tobytes(), one.width) for path, one in sorted(stored.items())
    }


class Load:
    """Threads that add, delete and search until `stop`, which raises their first failed assertion.

    `newest` has the acknowledged writes: for each filepath the greatest seq, and whether that was a deletion.
    """

    def __init__(
        self, store: ElasticStore, ledger: Ledger, sequence: SequenceNumbers, writer: Writer, static: list[Record]
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._sequence = sequence
        self._writer = writer
        self.static = static
        self.newest: dict[str, tuple[int, bool]] = {}
        self._written = self._searched = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        loops = [self._add] * 16 + [self._delete] + [self._search] * 2
        self._pool = ThreadPoolExecutor(len(loops))
        self._running = [
            self._pool.submit(self._repeat, loop, random.Random(number)) for number, loop in enumerate(loops)
        ]

    def wait_for_progress(self) -> None:
        """Return when many more images have been written and found than now."""
        written, searched = self._written, self._searched
        wait_until(lambda: self._broke() or (self._written > written + 300 and self._searched > searched + 30))

    def stop(self) -> None:
        self._over.set()
        self._pool.shutdown()
        for one in self._running:
            one.result()

    def end(self) -> None:
        self._over.set()
        self._pool.shutdown()

    def _broke(self) -> bool:
        return any(one.done() for one in self._running)

    def _repeat(self, once: Callable[[random.Random], None], rng: random.Random) -> None:
        while not self._over.is_set():
            once(rng)

    def _add(self, rng: random.Random) -> None:
        name = f"moving/{rng.randrange(CHANGING)}.jpg" if rng.random() < 0.5 else f"once/{rng.getrandbits(64):x}.jpg"
        job = AddItem(filepath=name, url="http://example.org")
        (task,) = enqueue(self._ledger, [job], queue=SINGLE_QUEUE)
        claim = self._ledger.begin(task.id)
        assert claim is not None
        # The download: a later one often ends earlier.
        time.sleep(rng.random() * 0.2)
        assert self._writer.write(claim, record(job.filepath, claim.seq)).state in {State.SUCCEEDED, State.SUPERSEDED}
        self._acknowledged(job.filepath, claim.seq, deleted=False)

    def _delete(self, rng: random.Random) -> None:
        tombstone = Tombstone(filepath=f"moving/{rng.randrange(CHANGING)}.jpg", seq=self._sequence.next(), added=1)

        time.sleep(rng.random() * 0.2)
        assert until_it_answers(lambda: put(self._store, tombstone)) in {Verdict.STORED, Verdict.SUPERSEDED}
        self._acknowledged(tombstone.filepath, tombstone.seq, deleted=True)

    def _search(self, rng: random.Random) -> None:
        expected = rng.choice(self.static)
        try:
            (near,) = self._store.candidates(expected.signatures[0][None], limit=10)
            stored = self._store.records([expected.filepath])
            count = self._store.count()
            listed = self._store.filepaths(offset=0, limit=STATIC).filepaths
        except StoreUnavailable:
            # An outage may be reported. A partial reply must not be.
            time.sleep(0.05)
            return
        assert near[0].filepath == expected.filepath
        assert contents(stored) == contents({expected.filepath: expected})
        assert count >= STATIC
        assert listed == [one.filepath for one in self.static]
        with self._lock:
            self._searched += 1

    def _acknowledged(self, filepath: str, seq: int, *, deleted: bool) -> None:
        with self._lock:
            self._written += 1
            self.newest[filepath] = max(self.newest.get(filepath, (0, False)), (seq, deleted))


@pytest.fixture
def load(store: ElasticStore, real_redis: Redis, uploads: Any) -> Iterator[Load]:
    static = [record(f"still/{seq}.jpg", seq) for seq in range(1, STATIC + 1)]
    assert {written.verdict for written in store.put(static)} == {Verdict.STORED}
    store.refresh()
    ledger = Ledger(real_redis, max_open=10_000, finished_keep_s=600, failed_keep_s=600)
    writer = Writer(
        store,
        TaskFinisher(ledger, uploads, failed_keep_s=600),
        max_records=200,
        linger_s=0.05,
        hold_s=60,
    )
    load = Load(store, ledger, SequenceNumbers(real_redis), writer, static)
    yield load
    load.end()
    writer.close()


def test_without_a_master_searches_answer_and_writes_wait(
    cluster: Cluster, store: ElasticStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.store.elastic.bulk.SHARD_WITHIN_S", 1)
    cat, dog = record("cat.jpg", 1), record("dog.jpg", 2)
    store.put([cat])
    store.refresh()

    cluster.master.kill()
    wait_until(lambda: not store.health().writes)
    health = store.health()
    (near,) = store.candidates(cat.signatures[0][None], limit=1)
    records, count = store.records(["cat.jpg"]), store.count()
    with pytest.raises(StoreUnavailable, match="no master"):
        store.put([dog])
    cluster.start()
    verdict = until_it_answers(lambda: put(store, dog))

    assert (health.reads, health.writes) == (True, False)
    assert "master_not_discovered" in health.detail
    assert [one.filepath for one in near] == ["cat.jpg"]
    assert (contents(records), count) == (contents({"cat.jpg": cat}), 1)
    assert verdict is Verdict.STORED


def test_deaths_of_data_nodes_lose_nothing(
    cluster: Cluster, leader: Elasticsearch, store: ElasticStore, load: Load
) -> None:
    first, second = cluster.data
    load.wait_for_progress()

    first.kill()
    load.wait_for_progress()
    with_one_node = store.health()
    first.start()
    wait_until(lambda: copies(leader, store) == 2 * SHARDS)
    with_both_nodes = leader.cluster.health(index=store.index)["status"]
    load.wait_for_progress()
    load.stop()
    moving = {path: record(path, seq) for path, (seq, deleted) in load.newest.items() if not deleted}
    acknowledged = contents(moving | {one.filepath: one for one in load.static})
    paths = [*acknowledged, *load.newest]
    from_both = contents(until_it_answers(lambda: store.records(paths)))
    second.kill()
    from_the_first = contents(until_it_answers(lambda: store.records(paths)))
    until_it_answers(store.refresh)

    assert with_one_node == Health(reads=True, writes=True)
    assert with_both_nodes == "green"
    assert from_both == acknowledged
    assert from_the_first == acknowledged
    assert until_it_answers(store.count) == len(acknowledged)
