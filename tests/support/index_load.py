"""Load on a store while its servers die: adds, deletions and searches, and checks of their outcomes."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from redis import Redis

from common.errors import StoreUnavailable
from common.queue.items import AddItem
from common.queue.jobs import SINGLE_QUEUE
from common.queue.ledger import Ledger
from common.queue.sequence import SequenceNumbers
from common.queue.tasks import State
from common.store.base import Record, Tombstone, Verdict
from common.store.elastic import ElasticStore
from common.uploads import Uploads
from support import records
from support.tasks import enqueue
from support.waiting import wait_until
from workers.finishing import TaskFinisher
from workers.writer import Writer

# Records that are written once and searched all the time.
STATIC = 200
# Filepaths that all writers overwrite, so that a newer request for one often overtakes an older one.
CHANGING = 40


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

    def acknowledged(self) -> dict[str, tuple[int, Any, bytes, int]]:
        """Return the contents of all records that must exist now."""
        moving = {path: record(path, seq) for path, (seq, deleted) in self.newest.items() if not deleted}
        return contents(moving | {one.filepath: one for one in self.static})

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


@contextmanager
def under_load(store: ElasticStore, redis: Redis, uploads: Uploads) -> Iterator[Load]:
    """Load the store until the `with` ends."""
    static = [record(f"still/{seq}.jpg", seq) for seq in range(1, STATIC + 1)]
    assert {written.verdict for written in store.put(static)} == {Verdict.STORED}
    store.refresh()
    ledger = Ledger(redis, max_open=10_000, finished_keep_s=600, failed_keep_s=600)
    finisher = TaskFinisher(ledger, uploads, failed_keep_s=600)
    writer = Writer(store, finisher, max_records=200, linger_s=0.05, hold_s=60)
    load = Load(store, ledger, SequenceNumbers(redis), writer, static)
    try:
        yield load
    finally:
        load.end()
        writer.close()
