"""Writes to an index server that accepts them partly, late or not at all, played by a small server."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from typing import Any

import pytest

from common.errors import StoreError, StoreUnavailable
from common.queue.items import AddItem
from common.queue.jobs import SINGLE_QUEUE
from common.queue.ledger import Ledger
from common.queue.tasks import State
from common.store.base import Record, Verdict, Written
from common.store.elastic import ElasticStore, Shape
from common.store.elastic.bulk import BULK_BYTES
from common.store.elastic.dialects import Dialect, ElasticsearchDialect, OpenSearchDialect
from support.http_servers import Handler, LocalServer, serving
from support.records import record
from support.tasks import enqueue
from workers.finishing import TaskFinisher
from workers.writer import Writer

MIB = 1024 * 1024
# The reply to a body: TAKEN has a status for each item, UNANSWERED closes the connection, others refuse the body.
TAKEN, UNANSWERED = 200, 0
# The status of an item, by its filepath and the number of times that it was received.
ByItem = Callable[[str, int], int]
HEADERS = {"Content-Type": "application/json"}
# The responses to GET /, and the headers of all responses.
VERSIONS = {"Elasticsearch": {"number": "9.2.0"}, "OpenSearch": {"distribution": "opensearch", "number": "3.5.0"}}
PRODUCT_HEADERS = {"Elasticsearch": HEADERS | {"X-Elastic-Product": "Elasticsearch"}, "OpenSearch": HEADERS}


class Cluster(LocalServer):
    """Keeps the newest version of each document, as the product of the dialect does.

    `whole` and `by_item` set the replies; `largest` is the size of the largest accepted body in bytes.
    """

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(_Handler)
        self.dialect = dialect
        self.lock = threading.Lock()
        self.kept: dict[str, tuple[int, str]] = {}
        self.received: Counter[str] = Counter()
        self.bodies: list[int] = []
        self.whole: Iterator[int] = repeat(TAKEN)
        self.by_item: ByItem = lambda _path, _times: TAKEN
        self.largest = BULK_BYTES

    def bulk(self, body: bytes) -> tuple[int, Any]:
        with self.lock:
            self.bodies.append(len(body))
            status = next(self.whole) if len(body) <= self.largest else 413
            if status not in {TAKEN, UNANSWERED}:
                return status, {"error": {"type": "busy", "reason": "too much at once"}, "status": status}
            lines = [json.loads(line) for line in body.splitlines()]
            pairs = zip(lines[::2], lines[1::2], strict=True)
            return status, {"items": [{"index": self._index(action["index"], document)} for action, document in pairs]}

    def document(self, id_: str) -> Any:
        with self.lock:
            version, _ = self.kept.get(id_, (0, ""))
        return {"_id": id_, "found": bool(version), "_version": version, "_source": {"seq": version}}

    def _index(self, action: Any, document: Any) -> Any:
        path, version = document["path"], action["version"]
        self.received[path] += 1
        status = self.by_item(path, self.received[path])
        if status == TAKEN and self.kept.get(action["_id"], (0, ""))[0] > version:
            status = 409
        if status != TAKEN:
            return {"status": status, "error": {"type": "trouble", "reason": f"trouble {status}"}}
        self.kept[action["_id"]] = (version, path)
        return {"status": TAKEN, "result": "updated"}


class _Handler(Handler):
    server: Cluster
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        dialect = self.server.dialect
        if self.path == "/":
            self._answer(200, {"version": VERSIONS[dialect.product]})
            return
        if self.path.startswith("/_cat/plugins"):
            self._answer(200, [{"component": "opensearch-knn", "version": "3.5.0.0"}])
            return
        if self.command in {"GET", "HEAD"}:
            self._answer(200, {"images-1": {"aliases": {"images": {}}, "mappings": Shape().mappings(dialect)}})
            return
        if self.path.startswith("/images/_mget"):
            # No filepath has patches.
            self._answer(200, {"docs": [self.server.document(id_) for id_ in json.loads(self.body())["ids"]]})
            return
        assert self.path.startswith("/images/_bulk?")
        status, answer = self.server.bulk(self.body())
        if status == UNANSWERED:
            self.close_connection = True
        else:
            self._answer(status, answer)

    def _answer(self, status: int, body: Any) -> None:
        self.reply(status, json.dumps(body).encode(), PRODUCT_HEADERS[self.server.dialect.product])


# The products have different clients; for most tests that of Elasticsearch is enough.
each_product = pytest.mark.parametrize(
    "cluster", [ElasticsearchDialect(), OpenSearchDialect()], ids=lambda dialect: dialect.product, indirect=True
)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with serving(Cluster(getattr(request, "param", ElasticsearchDialect()))) as server:
        yield server


@pytest.fixture
def store(cluster: Cluster) -> Iterator[ElasticStore]:
    store = ElasticStore(cluster.url, index="images", timeout_s=5)
    yield store
    store.close()


def large(count: int) -> list[Record]:
    """Return records with the most metadata that a request may have."""
    return [record(f"{seq}.jpg", seq, metadata={"text": ["x" * 8_000] * 8}) for seq in range(1, count + 1)]


def verdicts(written: Sequence[Written]) -> list[Verdict]:
    return [one.verdict for one in written]


@each_product
def test_each_record_has_an_outcome_of_its_own(cluster: Cluster, store: ElasticStore) -> None:
    answers = {"conflict": 200, "busy": 429, "moving": 503, "broken": 500, "wrong": 400, "fine": 200}
    cluster.by_item = lambda path, _times: answers[path]
    store.put([record("conflict", 99)])

    written = store.put([record(path, seq) for seq, path in enumerate(answers, 1)])

    deferred = [Verdict.RETRY] * 3
    assert verdicts(written) == [Verdict.SUPERSEDED, *deferred, Verdict.REJECTED, Verdict.STORED]
    assert [one.reason for one in written] == ["", "trouble 429", "trouble 503", "trouble 500", "trouble 400", ""]


def test_no_body_exceeds_the_limit(cluster: Cluster, store: ElasticStore) -> None:
    written = store.put(large(400))

    assert set(verdicts(written)) == {Verdict.STORED}
    assert len(cluster.kept) == 400
    assert max(cluster.bodies) <= BULK_BYTES
    # Smaller bodies would need more round trips.
    assert len(cluster.bodies) == 4


def test_the_largest_record_fits_into_a_body(cluster: Cluster, store: ElasticStore) -> None:
    # Each number has a label, and each label the whole path.
    metadata = {'"' * 40: list(range(12_000))}

    written = store.put([record(f"{seq}.jpg", seq, metadata=metadata) for seq in range(1, 9)])

    assert set(verdicts(written)) == {Verdict.STORED}
    assert max(cluster.bodies) <= BULK_BYTES


@each_product
@pytest.mark.parametrize("status", [429, 503, UNANSWERED])
def test_overload_ends_a_write_and_keeps_its_stored_part(cluster: Cluster, store: ElasticStore, status: int) -> None:
    cluster.whole = iter([TAKEN, TAKEN, status])

    written = store.put(large(400))

    stored = verdicts(written).count(Verdict.STORED)
    assert verdicts(written) == [Verdict.STORED] * stored + [Verdict.RETRY] * (400 - stored)
    assert len(cluster.bodies) == 3
    assert stored > 200
    assert all(one.reason for one in written[stored:])


def test_unserializable_record_does_not_fail_the_others(cluster: Cluster, store: ElasticStore) -> None:
    odd = record("odd.jpg", 2, metadata={"a": float("nan")})

    written = store.put([record("cat.jpg", 1), odd, record("dog.jpg", 3)])

    assert verdicts(written) == [Verdict.STORED, Verdict.REJECTED, Verdict.STORED]
    assert sorted(path for _, path in cluster.kept.values()) == ["cat.jpg", "dog.jpg"]


@each_product
@pytest.mark.parametrize(
    ("status", "error"), [(429, StoreUnavailable), (503, StoreUnavailable), (413, StoreError), (400, StoreError)]
)
def test_write_that_stores_nothing_is_an_error(
    cluster: Cluster, store: ElasticStore, status: int, error: type[StoreError]
) -> None:
    cluster.whole = iter([status])

    with pytest.raises(StoreError) as raised:
        store.put([record("cat.jpg", 1)])

    assert type(raised.value) is error
    assert f"returned {status}: too much at once" in str(raised.value)


@pytest.fixture
def write(store: ElasticStore, fake_redis: Any, uploads: Any) -> Iterator[Callable[[int], list[State]]]:
    """Write images as a worker does, 32 at once; each filepath has two adds, one soon after the other."""
    ledger = Ledger(fake_redis, max_open=10_000, finished_keep_s=60, failed_keep_s=60)
    finisher = TaskFinisher(ledger, uploads, failed_keep_s=60)
    writer = Writer(store, finisher, max_records=20, linger_s=0.01, hold_s=60)

    def write_one(task_id: str) -> State:
        claim = ledger.begin(task_id)
        assert claim is not None
        return writer.write(claim, record(claim.filepath, claim.seq)).state

    def write(count: int) -> list[State]:
        jobs = [AddItem(filepath=f"{number // 2}.jpg", url="http://example.org") for number in range(count)]
        with ThreadPoolExecutor(32) as pool:
            return list(pool.map(write_one, [task.id for task in enqueue(ledger, jobs, queue=SINGLE_QUEUE)]))

    yield write
    writer.close()


def test_busy_records_are_sent_again_without_the_others(cluster: Cluster, write: Callable[[int], list[State]]) -> None:
    # Every third filepath is busy at first; the shard of every fifth moves to another node.
    def answer(path: str, times: int) -> int:
        number = int(path.removesuffix(".jpg"))
        if times > 2:
            return TAKEN
        return 429 if number % 3 == 0 else 503 if number % 5 == 0 else TAKEN

    cluster.by_item = answer

    states = write(100)

    assert set(states) <= {State.SUCCEEDED, State.SUPERSEDED}
    assert sorted(path for _, path in cluster.kept.values()) == sorted(f"{number}.jpg" for number in range(50))
    assert {cluster.received[f"{number}.jpg"] for number in range(50) if number % 3 and number % 5} == {2}


def test_write_that_fails_as_a_whole_is_sent_again(cluster: Cluster, write: Callable[[int], list[State]]) -> None:
    cluster.whole = chain([429, UNANSWERED, 503, TAKEN, UNANSWERED], repeat(TAKEN))

    states = write(100)

    newest = {path: version for version, path in cluster.kept.values()}
    assert set(states) <= {State.SUCCEEDED, State.SUPERSEDED}
    assert len(newest) == 50


def test_newer_request_wins_over_repeated_writes(cluster: Cluster, write: Callable[[int], list[State]]) -> None:
    cluster.whole = chain.from_iterable(repeat([TAKEN, UNANSWERED, 429]))

    states = write(100)

    # The second of each pair is newer: it succeeds no matter when the first was written.
    assert set(states[1::2]) == {State.SUCCEEDED}
    assert set(states[::2]) <= {State.SUCCEEDED, State.SUPERSEDED}


def test_body_too_large_for_a_proxy_is_split(cluster: Cluster, write: Callable[[int], list[State]]) -> None:
    # The size of one record, but not of two.
    cluster.largest = 1500

    states = write(100)

    assert max(cluster.bodies) > cluster.largest
    assert State.FAILED not in states
    assert len(cluster.kept) == 50
