"""Batches: their counters are exact, and they end with their last task or request."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from redis import Redis

from common.queue.batches import Batch, BatchCancelled, BatchConflict, Batches, BatchState, OpenBatch, batch_of
from common.queue.callbacks import CallbackState, Delivery, DeliveryResult, Outbox
from common.queue.host_limits import Fault
from common.queue.items import AddItem, EnqueueResult, NotEnqueued
from common.queue.jobs import BATCH_QUEUE, RequestContext
from common.queue.keys import (
    BATCH,
    BATCH_ENDS,
    BATCH_REQUESTS,
    BATCHES,
    CALLBACK_DELIVERY,
    CALLBACK_DUE,
    FAILED,
    OPEN,
    TASK,
)
from common.queue.ledger import Ledger
from common.queue.task_pages import TaskFilter, TaskPages
from common.queue.tasks import RetryRejected, State, TaskResult
from support.tasks import begin, fail, succeed, task_of
from workers.webhooks import body_of

URL = "http://example.org/a"
RECEIVER = "https://hooks.example.org:443/"


@pytest.fixture
def ledger(fake_redis: Redis) -> Ledger:
    return Ledger(fake_redis, max_open=1000, finished_keep_s=60, failed_keep_s=600)


@pytest.fixture
def batches(fake_redis: Redis) -> Batches:
    return Batches(fake_redis)


def add(ledger: Ledger, batch: OpenBatch, count: int, *, prefix: str = "", **options: bool) -> list[str]:
    """Add tasks to a batch; with a prefix their ids and fingerprints are known, as with an idempotency key."""
    items = [
        AddItem(
            filepath=f"{number}",
            url=URL,
            task_id=f"{prefix}{number}" if prefix else "",
            fingerprint=prefix and "f",
        )
        for number in range(count)
    ]
    results = ledger.enqueue(items, queue=BATCH_QUEUE, batch=batch, **options)
    return [result.task.id for result in results if isinstance(result, EnqueueResult)]


def get(batches: Batches, batch_id: str) -> Batch:
    batch = batches.get(batch_id)
    assert batch is not None
    return batch


def counts(batch: Batch) -> dict[str, int]:
    """Return the counters that are not 0."""
    names = [state.value for state in State]
    return {name: getattr(batch, name) for name in names if getattr(batch, name)}


def recount(ledger: Ledger, task_ids: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the states of the tasks and the codes of the failures, counted one by one."""
    tasks = [task_of(ledger, task_id) for task_id in task_ids]
    return Counter(task.state.value for task in tasks), Counter(task.code for task in tasks if task.code)


def test_a_batch_counts_its_tasks_by_state(ledger: Ledger, batches: Batches) -> None:
    batch = batches.join("b")
    running, stored, lost, waiting = add(ledger, batch, 4)
    for task_id in (running, stored, lost):
        begin(ledger, task_id)

    succeed(ledger, stored)
    fail(ledger, lost, code="http_not_found")

    current = get(batches, "b")
    assert counts(current) == {"running": 1, "succeeded": 1, "failed": 1, "pending": 1}
    assert (current.total, current.failures, current.state) == (4, {"http_not_found": 1}, BatchState.RUNNING)
    assert task_of(ledger, waiting).batch == "b"


@pytest.mark.parametrize("seed", range(8))
def test_counters_equal_a_recount_after_any_changes(ledger: Ledger, batches: Batches, seed: int) -> None:
    chance = random.Random(seed)
    batch = batches.join("b")
    task_ids = add(ledger, batch, 6) + add(ledger, batch, 6, prefix="k")
    add(ledger, batch, 6, prefix="k")
    changes: list[Callable[[str], Any]] = [
        ledger.begin,
        ledger.begin,
        ledger.make_pending,
        lambda task_id: ledger.defer(task_id, Fault(code="connect_failed", error="cannot be connected to")),
        partial(succeed, ledger),
        lambda task_id: fail(ledger, task_id, code=chance.choice(["timeout", "http_gone"])),
        lambda task_id: ledger.finish([TaskResult(task_id=task_id, state=State.SUPERSEDED)]),
        lambda task_id: ledger.cancel_many([task_id]),
        lambda task_id: ledger.retry([task_id]),
    ]

    for _ in range(150):
        chance.choice(changes)(chance.choice(task_ids))

        current = get(batches, "b")
        assert (counts(current), dict(current.failures)) == recount(ledger, task_ids)
        assert current.total == len(task_ids)


def test_a_batch_ends_with_its_last_task_and_request(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    batch = batches.join("b")
    [task_id] = add(ledger, batch, 1)

    succeed(ledger, task_id)
    while_adding = get(batches, "b")
    ledger.leave_batch(batch)
    ledger.leave_batch(batch)

    ended = get(batches, "b")
    assert (while_adding.state, while_adding.ended) == (BatchState.RUNNING, None)
    assert ended.state is BatchState.ENDED
    assert ended.ended is not None
    assert 0 < fake_redis.ttl(f"{BATCH}b") <= 60


def test_a_batch_of_a_dead_process_ends(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    batch = batches.join("b")
    succeed(ledger, *add(ledger, batch, 1))
    fake_redis.zadd(BATCH_REQUESTS, {f"b {batch.request}": 1})

    ended = ledger.end_lost_requests(limit=10), ledger.end_lost_requests(limit=10)

    assert ended == (1, 0)
    assert get(batches, "b").state is BatchState.ENDED


def test_a_request_continues_an_ended_batch(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    first = batches.join("b", owner="importer")
    succeed(ledger, *add(ledger, first, 2))
    ledger.leave_batch(first)

    second = batches.join("b", owner="importer")
    add(ledger, second, 3)
    ledger.leave_batch(second)

    current = get(batches, "b")
    assert (current.state, current.total, current.succeeded, current.pending) == (BatchState.RUNNING, 5, 2, 3)
    assert fake_redis.ttl(f"{BATCH}b") == -1


@pytest.mark.parametrize("other", [{"owner": "b"}, {"owner": "a", "collection": "shop"}, {}])
def test_a_batch_has_one_key_and_collection(batches: Batches, other: dict[str, str]) -> None:
    batches.join("b", owner="a")

    with pytest.raises(BatchConflict):
        batches.join("b", **other)


def test_a_retry_opens_a_batch_again(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    batch = batches.join("b")
    [task_id] = add(ledger, batch, 1)
    fail(ledger, task_id)
    ledger.leave_batch(batch)
    kept_s = fake_redis.ttl(f"{BATCH}b")

    ledger.retry([task_id])

    current = get(batches, "b")
    assert (current.state, counts(current), current.failures) == (BatchState.RUNNING, {"pending": 1}, {})
    assert (600 < kept_s <= 660, fake_redis.ttl(f"{BATCH}b")) == (True, -1)


def test_an_enqueue_that_redis_repeats_counts_once(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    batch = batches.join("b")
    add(ledger, batch, 3)
    ids = [key.decode().removeprefix(TASK) for key in fake_redis.scan_iter(f"{TASK}*")]
    begin(ledger, ids[0])

    results = ledger.enqueue([AddItem(task_id=task_id) for task_id in ids], queue=BATCH_QUEUE, batch=batch)

    assert counts(get(batches, "b")) == {"pending": 2, "running": 1}
    assert all(isinstance(result, EnqueueResult) for result in results)


def test_tasks_of_earlier_versions_are_not_counted(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    [task_id] = add(ledger, batches.join("b"), 1)
    fake_redis.hdel(f"{TASK}{task_id}", "batch")

    begin(ledger, task_id)
    succeed(ledger, task_id)

    assert counts(get(batches, "b")) == {"pending": 1}


def test_a_task_without_a_batch_record_ends(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    [task_id] = add(ledger, batches.join("b"), 1)
    fake_redis.delete(f"{BATCH}b")

    begin(ledger, task_id)
    succeed(ledger, task_id)

    assert task_of(ledger, task_id).state is State.SUCCEEDED
    assert not fake_redis.exists(f"{BATCH}b")


def test_no_task_creates_a_batch_record(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    batch = batches.join("b")
    fake_redis.delete(BATCH + "b")

    [task_id] = add(ledger, batch, 1, prefix="t")

    assert fake_redis.exists(BATCH + "b") == 0
    assert batches.get("b") is None
    assert begin(ledger, task_id).batch == "b"


def test_a_directing_task_counts_only_its_failure(ledger: Ledger, batches: Batches) -> None:
    batch = batches.join("b")
    [task_id] = add(ledger, batch, 1, is_counted=False)
    ledger.leave_batch(batch)
    begin(ledger, task_id)

    batches.count("b", total=10)
    batches.count("b", ended={State.SUCCEEDED: 4})

    during = get(batches, "b")
    fail(ledger, task_id, code="store_error")
    ended = get(batches, "b")
    ledger.retry([task_id])
    assert (during.state, during.total, counts(during)) == (BatchState.RUNNING, 10, {"succeeded": 4, "pending": 6})
    assert (ended.state, ended.total, ended.failures) == (BatchState.ENDED, 11, {"store_error": 1})
    assert counts(get(batches, "b")) == {"succeeded": 4, "pending": 6}


def test_a_batch_is_reported_after_its_tasks(fake_redis: Redis, ledger: Ledger, batches: Batches) -> None:
    outbox = Outbox(fake_redis, lease_s=30, keep_s=3600)
    batch = batches.join("b", callback_url=RECEIVER)
    items = [AddItem(filepath=f"{number}", url=URL) for number in range(3)]
    ledger.enqueue(items, queue=BATCH_QUEUE, context=RequestContext(callback_url=RECEIVER), batch=batch)
    ledger.leave_batch(batch)
    succeed(ledger, *open_tasks(fake_redis))

    deliveries = [deliver(fake_redis, outbox), deliver(fake_redis, outbox)]

    bodies = [json.loads(body_of(delivery)) for delivery in deliveries]
    assert [body["type"] for body in bodies] == ["tasks.ended", "batch.ended"]
    assert [task["batch"] for task in bodies[0]["tasks"]] == ["b"] * 3
    assert (bodies[1]["batch"]["state"], bodies[1]["batch"]["succeeded"]) == ("ended", 3)
    reported = get(batches, "b").callback
    assert reported is not None
    assert reported.state is CallbackState.DELIVERED


def test_a_replayed_request_ends_no_batch_again(fake_redis: Redis, ledger: Ledger, batches: Batches) -> None:
    outbox = Outbox(fake_redis, lease_s=30, keep_s=3600)
    for _ in range(2):
        batch = batches.join("b", callback_url=RECEIVER)
        task_ids = add(ledger, batch, 2, prefix="k")
        succeed(ledger, *task_ids)
        ledger.leave_batch(batch)

    deliver(fake_redis, outbox)

    assert outbox.claim() is None


def test_a_mixed_delivery_of_earlier_versions_is_split(fake_redis: Redis, ledger: Ledger, batches: Batches) -> None:
    outbox = Outbox(fake_redis, lease_s=30, keep_s=3600)
    for name in ("a", "b"):
        ledger.leave_batch(batches.join(name, callback_url=RECEIVER))
    fake_redis.hset(f"{CALLBACK_DELIVERY}{RECEIVER}", mapping={"id": "msg_1", "count": 2, "attempts": 1})

    deliveries = [deliver(fake_redis, outbox), deliver(fake_redis, outbox)]

    assert [delivery.batch and delivery.batch.batch_id for delivery in deliveries] == ["a", "b"]
    assert (deliveries[0].id, deliveries[0].attempt) == ("msg_1", 2)


def test_no_task_of_a_cancelled_batch_begins(ledger: Ledger, batches: Batches) -> None:
    batch = batches.join("b")
    running, waiting = add(ledger, batch, 2)
    begin(ledger, running)

    batches.cancel("b")

    claim = begin(ledger, waiting)
    assert claim.is_batch_cancelled
    ledger.finish([claim.result(State.CANCELLED)])
    succeed(ledger, running)
    ledger.leave_batch(batch)
    current = get(batches, "b")
    assert (current.state, counts(current)) == (BatchState.CANCELLED, {"succeeded": 1, "cancelled": 1})
    assert current.ended is not None


def test_a_cancelled_batch_accepts_and_retries_nothing(ledger: Ledger, batches: Batches) -> None:
    batch = batches.join("b")
    failed, _ = add(ledger, batch, 2)
    fail(ledger, failed)
    batches.cancel("b")

    results = ledger.enqueue([AddItem(filepath="1", url=URL)], queue=BATCH_QUEUE, batch=batch)

    assert results == [NotEnqueued.CANCELLED]
    assert ledger.retry([failed]) == [RetryRejected.BATCH_CANCELLED]
    with pytest.raises(BatchCancelled):
        batches.join("b")


def test_an_ended_batch_is_not_cancelled(ledger: Ledger, batches: Batches) -> None:
    ledger.leave_batch(batches.join("b"))

    exists = batches.cancel("b"), batches.cancel("unknown")

    assert exists == (True, False)
    assert get(batches, "b").state is BatchState.ENDED


def test_pages_have_the_batches_of_a_collection(batches: Batches, fake_redis: Redis) -> None:
    for number in range(5):
        batches.join(f"b{number}", collection="shop")
        fake_redis.zadd(f"{BATCHES}shop", {f"b{number}": number})
    batches.join("other")
    listed, cursor = [], None

    while cursor != "":
        page = batches.page("shop", limit=2, cursor=cursor)
        listed.append([batch.id for batch in page.batches])
        cursor = page.cursor or ""

    assert listed == [["b4", "b3"], ["b2", "b1"], ["b0"]]


def test_expired_batches_leave_the_list(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    for name in ("gone", "kept"):
        ledger.leave_batch(batches.join(name))
    batches.join("open")
    fake_redis.zadd(BATCH_ENDS, {"default gone": 1})

    purged = batches.purge(limit=10)

    page = batches.page("default", limit=10)
    assert (purged, {batch.id for batch in page.batches}) == (1, {"kept", "open"})
    assert fake_redis.zcard(BATCH_ENDS) == 2


def test_a_batch_whose_tasks_an_earlier_version_ended_ends(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    batch = batches.join("b")
    old, new = add(ledger, batch, 2)
    begin(ledger, old)
    succeed(ledger, new)
    ledger.leave_batch(batch)
    fake_redis.zrem(OPEN, old)

    ledger.end_lost_requests(limit=10)

    current = get(batches, "b")
    assert (current.state, current.total, counts(current)) == (BatchState.ENDED, 1, {"succeeded": 1})


def test_tasks_of_a_batch_are_listed(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    batch = batches.join("b")
    stored, failed, waiting = add(ledger, batch, 3)
    succeed(ledger, stored, *add(ledger, batches.join("other"), 1))
    fail(ledger, failed)

    page = TaskPages(fake_redis).page(None, limit=10, only=TaskFilter(batch=get(batches, "b")))

    assert [task.id for task in page.tasks] == [waiting, failed, stored]


def test_pages_of_an_ended_batch_skip_later_tasks(
    ledger: Ledger, batches: Batches, fake_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.queue.task_pages.MAX_SCANNED", 1)
    batch = batches.join("b")
    [failed] = add(ledger, batch, 1)
    fail(ledger, failed)
    ledger.leave_batch(batch)
    later = add(ledger, batches.join("later"), 1)
    fail(ledger, *later)
    fake_redis.zadd(FAILED, {later[0]: (get(batches, "b").ended or 0) + 1})

    page = TaskPages(fake_redis).page(State.FAILED, limit=10, only=TaskFilter(batch=get(batches, "b")))

    assert [task.id for task in page.tasks] == [failed]


def test_ended_tasks_of_an_ended_batch_are_listed(ledger: Ledger, batches: Batches, fake_redis: Redis) -> None:
    batch = batches.join("b")
    first, second = add(ledger, batch, 2)
    succeed(ledger, first, second)
    ledger.leave_batch(batch)
    pages, only = TaskPages(fake_redis), TaskFilter(batch=get(batches, "b"))

    whole = pages.page(State.SUCCEEDED, limit=10, only=only)
    head = pages.page(State.SUCCEEDED, limit=1, only=only)
    tail = pages.page(State.SUCCEEDED, limit=10, cursor=head.cursor, only=only)

    assert [task.id for task in whole.tasks] == [second, first]
    assert [[task.id for task in page.tasks] for page in (head, tail)] == [[second], [first]]


def deliver(redis: Redis, outbox: Outbox) -> Delivery:
    """Return the next delivery, which is due, as accepted by its receiver."""
    redis.zadd(CALLBACK_DUE, {RECEIVER: 0})
    delivery = outbox.claim()
    assert delivery is not None
    outbox.report(delivery, DeliveryResult.ACCEPTED)
    return delivery


def open_tasks(redis: Redis) -> list[str]:
    return [task_id.decode() for task_id in redis.zrange(OPEN, 0, -1) if isinstance(task_id, bytes)]


FIELDS = {"collection": "default", "accepted": "0", "total": "2000"}


@pytest.mark.parametrize(
    ("fields", "now", "expected"),
    [
        ({}, 60_000, (0.0, None)),
        ({"started": "0", "before": "0", "window_at": "0", "window_ended": "0", "succeeded": "700"}, 5000, (140.0, 10)),
        (
            {
                "started": "0",
                "before": "0",
                "last_at": "50000",
                "last_ended": "460",
                "window_at": "60000",
                "window_ended": "1",
            }
            | {"succeeded": "1798", "failed": "62", "code:http_not_found": "62"},
            60_000,
            (140.0, 1),
        ),
        ({"started": "9000", "before": "1000", "finished": "19000", "succeeded": "2000"}, 90_000, (100.0, 0)),
    ],
)
def test_the_rate_is_recent(fields: dict[str, str], now: int, expected: tuple[float, int | None]) -> None:
    batch = batch_of("b", FIELDS | fields, now=now)

    assert (batch.rate_per_s, batch.seconds_left) == expected


@pytest.mark.parametrize(
    ("fields", "pending"),
    [
        ({"open": "1", "succeeded": "1990"}, 10),
        ({"open": "1", "succeeded": "2010"}, 0),
        ({"finished": "9", "superseded": "1"}, 0),
        ({"finished": "9", "cancelled_at": "8"}, 0),
    ],
)
def test_an_estimated_total_leaves_no_wrong_pending(fields: dict[str, str], pending: int) -> None:
    batch = batch_of("b", FIELDS | fields, now=60_000)

    assert (batch.pending, batch.seconds_left) == (pending, None if pending else 0)


def test_windows_of_the_rate_follow_the_clock(fake_redis: Redis, ledger: Ledger, batches: Batches) -> None:
    batch = batches.join("b")
    task_ids = add(ledger, batch, 4)
    begin(ledger, task_ids[0])
    for task_id in task_ids[:3]:
        fake_redis.hincrby(f"{BATCH}b", "window_at", -20_000)
        succeed(ledger, task_id)

    windows = fake_redis.hmget(f"{BATCH}b", "last_ended", "window_ended")

    assert windows == [b"2", b"3"]
