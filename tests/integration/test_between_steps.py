"""Races and lost replies between two steps of a task."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from threading import Event
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError  # noqa: A004 - the client's own name

from api.use_cases.manage_tasks import ManageTasks
from common.byte_budget import ByteBudget
from common.errors import QueueUnavailable, StoreUnavailable
from common.net.fetch import Fetcher
from common.queue.admission import Admission
from common.queue.failures import Failures
from common.queue.host_limits import HostLimit, HostSlots
from common.queue.items import AddItem
from common.queue.jobs import SINGLE_QUEUE
from common.queue.keys import FAILED, OPEN, SLOTS, UNACKED, UNACKED_INDEX, UPLOAD
from common.queue.leases import Leases
from common.queue.ledger import Ledger
from common.queue.publisher import Publisher
from common.queue.stale_tasks import StaleTasks
from common.queue.tasks import RetryRejected, State, TaskResult
from common.redis.client import connect
from common.redis.clock import now_ms
from common.uploads import RedisUploads, Uploads
from dev.redis_server import RedisServer
from support.images import gradient
from support.pipelines import open_pipeline
from support.tasks import enqueue, ledger_in
from workers.host_limiter import HostLimiter
from workers.pipeline import MAX_UNFINISHED, Pipeline
from workers.retention import Retention
from workers.sweeper import Sweeper

KEEP_S = 600
WITHIN_S = 30
LONG_AGO_MS = 3_600_000
LEASE_S = 20.0


class Lossy:
    """A client that loses the next reply when `loses` is set; Redis has executed the command by then."""

    def __init__(self, url: str) -> None:
        self.loses = False
        self.client = connect(url)
        # The first command also exchanges a greeting, whose reply must not be the lost one.
        self.client.ping()
        self._wrap(self.client.connection_pool.get_connection())

    def _wrap(self, connection: Any) -> None:
        read = connection.read_response

        def read_or_lose(*args: Any, **kwargs: Any) -> Any:
            reply = read(*args, **kwargs)
            if self.loses:
                self.loses = False
                connection.disconnect()
                raise ConnectionError("lost")
            return reply

        connection.read_response = read_or_lose
        self.client.connection_pool.release(connection)


@pytest.fixture
def lossy(redis_server: RedisServer, real_redis: Redis) -> Iterator[Lossy]:
    assert real_redis.ping()
    lossy = Lossy(redis_server.url)
    yield lossy
    lossy.client.close()


HOST_LIMIT = HostLimit(slots=1, lease_s=LEASE_S)


def uploads_in(redis: Redis, *, max_bytes: int = 1000) -> Uploads:
    return RedisUploads(redis, admission=Admission(redis, max_percent=80), max_bytes=max_bytes)


@pytest.fixture
def ledger(real_redis: Redis) -> Ledger:
    return ledger_in(real_redis, keep_s=KEEP_S, host_limit=HOST_LIMIT)


@pytest.fixture
def uploads(real_redis: Redis) -> Uploads:
    return uploads_in(real_redis)


@pytest.fixture
def failures(real_redis: Redis) -> Failures:
    return Failures(real_redis)


@pytest.fixture
def recovery(ledger: Ledger, uploads: Uploads, publisher: Publisher) -> ManageTasks:
    return ManageTasks(ledger, uploads, publisher)


def accept(ledger: Ledger, uploads: Uploads, data: bytes = b"bytes") -> tuple[str, str]:
    """Accept an upload, and return the ids of its task and its bytes."""
    upload_id = uploads.put(data)
    [task] = enqueue(ledger, [AddItem(filepath="a", upload_id=upload_id)], queue=SINGLE_QUEUE)
    uploads.keep(upload_id)
    return task.id, upload_id


def fail(ledger: Ledger, uploads: Uploads, task_id: str) -> None:
    claim = ledger.begin(task_id)
    assert claim is not None
    uploads.drop(list(ledger.uploads_of([task_id]).values()), after_s=KEEP_S)
    ledger.finish([TaskResult(task_id=task_id, state=State.FAILED, code="timeout", error="why")])


def state(ledger: Ledger, task_id: str) -> State:
    task = ledger.task(task_id)
    assert task is not None
    return task.state


def test_upload_counts_once_when_the_reply_is_lost(lossy: Lossy, uploads: Uploads, fake_admission: Any) -> None:
    lossy.loses = True

    upload_id = RedisUploads(lossy.client, admission=fake_admission, max_bytes=1000).put(b"a" * 100)

    held_bytes = uploads.stored_bytes()
    uploads.drop([upload_id])
    assert (lossy.loses, held_bytes, uploads.stored_bytes()) == (False, 100, 0)


def test_upload_at_the_limit_survives_a_lost_reply(lossy: Lossy, uploads: Uploads, fake_admission: Any) -> None:
    lossy.loses = True

    upload_id = RedisUploads(lossy.client, admission=fake_admission, max_bytes=100).put(b"a" * 100)

    assert uploads.get(upload_id) == b"a" * 100


def test_cancel_with_a_lost_reply_leaves_no_upload(
    lossy: Lossy, ledger: Ledger, uploads: Uploads, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, upload_id = accept(ledger, uploads)
    lossy_ledger = ledger_in(lossy.client)
    cancel = lossy_ledger.cancel_many
    # Redis caches the script now, so that the lost reply is the script's own.
    cancel(["nobody"])
    lost = []

    def cancel_without_reply(task_ids: Sequence[str]) -> list[State | None]:
        lossy.loses = True
        states = cancel(task_ids)
        lost.append(not lossy.loses)
        return states

    monkeypatch.setattr(lossy_ledger, "cancel_many", cancel_without_reply)

    ManageTasks(lossy_ledger, uploads, publisher).cancel(task_id)

    assert lost == [True]
    assert state(ledger, task_id) is State.CANCELLED
    assert uploads.get(upload_id) is None
    assert uploads.stored_bytes() == 0


def test_task_that_fails_during_cancel_leaves_an_expiring_upload(
    recovery: ManageTasks, ledger: Ledger, uploads: Uploads, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, upload_id = accept(ledger, uploads)
    cancel = ledger.cancel_many

    def cancel_too_late(task_ids: Sequence[str]) -> list[State | None]:
        fail(ledger, uploads, task_id)
        return cancel(task_ids)

    monkeypatch.setattr(ledger, "cancel_many", cancel_too_late)

    previous = recovery.cancel(task_id)

    assert previous is State.FAILED
    assert 0 < real_redis.ttl(UPLOAD + upload_id) <= KEEP_S


def test_task_that_begins_during_cancel_keeps_its_upload(
    recovery: ManageTasks, ledger: Ledger, uploads: Uploads, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, upload_id = accept(ledger, uploads)
    cancel = ledger.cancel_many

    def cancel_too_late(task_ids: Sequence[str]) -> list[State | None]:
        ledger.begin(task_id)
        return cancel(task_ids)

    monkeypatch.setattr(ledger, "cancel_many", cancel_too_late)

    previous = recovery.cancel(task_id)

    assert previous is State.RUNNING
    assert uploads.get(upload_id) == b"bytes"
    assert real_redis.ttl(UPLOAD + upload_id) > KEEP_S


def test_task_retried_during_eviction_keeps_its_upload(
    recovery: ManageTasks,
    ledger: Ledger,
    uploads: Uploads,
    memory_store: Any,
    real_redis: Redis,
    failures: Failures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task_id, upload_id = accept(ledger, uploads, b"a" * 990)
    fail(ledger, uploads, task_id)
    failed_after = failures.after
    rejections = []

    def retry_after_read(at: int, *, limit: int) -> list[tuple[str, int]]:
        page = failed_after(at, limit=limit)
        rejections.extend(recovery.retry([task_id]))
        return page

    monkeypatch.setattr(failures, "after", retry_after_read)

    evicted = Retention(real_redis, ledger, failures, memory_store, uploads, KEEP_S).evict_uploads()

    assert (rejections, evicted) == ([None], 0)
    assert uploads.get(upload_id) == b"a" * 990


def test_retry_after_eviction_reports_the_lost_upload(
    recovery: ManageTasks,
    ledger: Ledger,
    uploads: Uploads,
    memory_store: Any,
    real_redis: Redis,
    failures: Failures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task_id, upload_id = accept(ledger, uploads, b"a" * 990)
    fail(ledger, uploads, task_id)
    existing = uploads.existing

    def evict_after_read(upload_ids: Sequence[str]) -> set[str]:
        ids = existing(upload_ids)
        Retention(real_redis, ledger, failures, memory_store, uploads, KEEP_S).evict_uploads()
        return ids

    monkeypatch.setattr(uploads, "existing", evict_after_read)

    rejections = recovery.retry([task_id])

    assert rejections == [RetryRejected.UPLOAD_LOST]
    assert state(ledger, task_id) is State.FAILED
    assert uploads.get(upload_id) is None


def test_eviction_spares_a_new_task_with_a_failed_id(
    ledger: Ledger, uploads: Uploads, memory_store: Any, real_redis: Redis, failures: Failures
) -> None:
    task_id, upload_id = accept(ledger, uploads, b"a" * 990)
    real_redis.zadd(FAILED, {task_id: 1})

    Retention(real_redis, ledger, failures, memory_store, uploads, KEEP_S).evict_uploads()

    assert uploads.get(upload_id) == b"a" * 990


@pytest.fixture
def pipeline(ledger: Ledger, real_redis: Redis, memory_store: Any) -> Iterator[Pipeline]:
    uploads = uploads_in(real_redis, max_bytes=1_000_000)
    fetcher = Fetcher(max_bytes=1000, timeout_s=1)
    with (
        closing(fetcher),
        open_pipeline(
            real_redis,
            ledger,
            uploads,
            memory_store,
            failed_keep_s=KEEP_S,
            host_limit=HOST_LIMIT,
            fetcher=fetcher,
            budget=ByteBudget(1_000_000, wait_s=1),
            max_image_bytes=1_000_000,
        ) as pipeline,
    ):
        yield pipeline


def test_lost_task_is_not_decoded_again_after_failed_finish(
    pipeline: Pipeline, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, other = (accept(ledger, pipeline.uploads, gradient())[0] for _ in range(2))
    for _ in range(MAX_UNFINISHED):
        ledger.begin(lost)

    def fail_to_finish(_results: Sequence[TaskResult]) -> int:
        raise QueueUnavailable("Redis does not answer")

    with monkeypatch.context() as outage:
        outage.setattr(ledger, "finish", fail_to_finish)
        with pytest.raises(QueueUnavailable):
            pipeline.run(lost)
    pipeline.run(other)

    pipeline.run(lost)

    assert [state(ledger, task_id) for task_id in (other, lost)] == [State.SUCCEEDED, State.FAILED]


class Queue:
    """The queue to which the sweeper sends; `arrived` is set at the first message."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.arrived = Event()

    def send(self, task_ids: Sequence[str], _queue: str, _at: int) -> None:
        self.sent.extend(task_ids)
        self.arrived.set()


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def make_sweeper(
    ledger: Ledger, failures: Failures, memory_store: Any, real_redis: Redis, queue: Queue
) -> Callable[..., Sweeper]:
    def make(uploads: Uploads, *, every_s: float = 60) -> Sweeper:
        return Sweeper(
            real_redis,
            StaleTasks(real_redis),
            Leases(real_redis),
            queue.send,
            host_limiter=HostLimiter(HostSlots(real_redis, HOST_LIMIT), queue.send),
            retention=Retention(real_redis, ledger, failures, memory_store, uploads, KEEP_S),
            every_s=every_s,
            lost_after_s=60,
            batch=100,
        )

    return make


def accept_long_ago(ledger: Ledger, redis: Redis) -> str:
    [task] = enqueue(ledger, [AddItem(filepath="a", url="http://example.org/a")], queue=SINGLE_QUEUE)
    redis.zadd(OPEN, {task.id: now_ms(redis) - LONG_AGO_MS})
    return task.id


def test_half_an_acknowledgement_hides_no_loss(
    make_sweeper: Callable[..., Sweeper], ledger: Ledger, uploads: Uploads, real_redis: Redis, queue: Queue
) -> None:
    unacknowledged, retried = (accept_long_ago(ledger, real_redis) for _ in range(2))
    for task_id in (unacknowledged, retried):
        body = b64encode(json.dumps([[task_id], {}, {}]).encode()).decode()
        real_redis.hset(UNACKED, task_id, json.dumps([{"body": body, "headers": {}}, "", SINGLE_QUEUE]))
        real_redis.zadd(UNACKED_INDEX, {task_id: 1})
    # The first command of an acknowledgement; Redis ended before the second.
    real_redis.zrem(UNACKED_INDEX, retried)

    make_sweeper(uploads).sweep()

    assert queue.sent == [retried]


def test_unavailable_uploads_do_not_delay_a_sweep(
    make_sweeper: Callable[..., Sweeper], ledger: Ledger, real_redis: Redis, queue: Queue
) -> None:
    task_id = accept_long_ago(ledger, real_redis)
    sweeper = make_sweeper(uploads_in(connect("redis://127.0.0.1:1/0")), every_s=0.1)

    sweeper.start()
    arrived = queue.arrived.wait(WITHIN_S)
    sweeper.close()

    assert arrived
    assert queue.sent == [task_id]


def test_unavailable_store_does_not_delay_the_upload_purge(
    ledger: Ledger,
    memory_store: Any,
    uploads: Uploads,
    real_redis: Redis,
    failures: Failures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    purged = Event()

    def fail_to_purge(*, before: int, limit: int) -> int:
        raise StoreUnavailable(f"unavailable for {limit} from before {before}")

    monkeypatch.setattr(uploads, "purge", purged.set)
    monkeypatch.setattr(memory_store, "purge", fail_to_purge)

    with pytest.raises(StoreUnavailable):
        Retention(real_redis, ledger, failures, memory_store, uploads, KEEP_S).purge()

    assert purged.is_set()


def test_slot_from_before_a_clock_change_blocks_no_task(ledger: Ledger, real_redis: Redis) -> None:
    [task] = enqueue(ledger, [AddItem(filepath="a", url="http://example.org/a")], queue=SINGLE_QUEUE)
    # The other worker died in the hour that the clock now repeats.
    real_redis.zadd(SLOTS + "example.org", {"another": now_ms(real_redis) + LONG_AGO_MS})

    begun = ledger.begin(task.id)

    assert begun is not None
