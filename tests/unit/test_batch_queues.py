"""Batch queues: batches of different collections wait in different queues while that is possible."""

import pytest
from redis import Redis

from common.queue.items import AddItem, EnqueueResult, NotEnqueued
from common.queue.jobs import BATCH_QUEUE, BATCH_QUEUES, SINGLE_QUEUE
from common.queue.keys import BATCH_QUEUE_OF, OPEN_BY_COLLECTION
from common.queue.ledger import Ledger
from support.tasks import enqueue, fail, ledger_in, succeed

URL = "http://example.org/a"


@pytest.fixture
def ledger(fake_redis: Redis) -> Ledger:
    return ledger_in(fake_redis)


def enqueue_batch(redis: Redis, ledger: Ledger, collection: str, count: int = 1) -> str:
    """Enqueue a batch with a message for each task, and return its queue."""
    items = [AddItem(filepath=f"{number}", url=URL) for number in range(count)]
    [queue] = {
        result.queue
        for result in ledger.enqueue(items, queue=BATCH_QUEUE, collection=collection)
        if isinstance(result, EnqueueResult)
    }
    redis.lpush(queue, *["message"] * count)
    return queue


def open_tasks(redis: Redis) -> dict[bytes, bytes]:
    return redis.hgetall(OPEN_BY_COLLECTION)


def test_eight_collections_have_eight_queues(fake_redis: Redis, ledger: Ledger) -> None:
    queues = [enqueue_batch(fake_redis, ledger, f"shop-{number}", 3) for number in range(8)]

    assert sorted(queues) == sorted(BATCH_QUEUES)


def test_collection_keeps_its_queue_while_tasks_are_open(fake_redis: Redis, ledger: Ledger) -> None:
    queues = {enqueue_batch(fake_redis, ledger, "shop", 5) for _ in range(10)}

    assert len(queues) == 1


def test_small_batch_leaves_the_queue_of_a_large_one(fake_redis: Redis, ledger: Ledger) -> None:
    queue = enqueue_batch(fake_redis, ledger, "small")
    # A large batch of another collection.
    fake_redis.lpush(queue, *["message"] * 50)

    assert enqueue_batch(fake_redis, ledger, "small") != queue


def test_ninth_collection_takes_the_shortest_queue(fake_redis: Redis, ledger: Ledger) -> None:
    queues = [enqueue_batch(fake_redis, ledger, f"shop-{number}", 3 - (number == 5)) for number in range(8)]

    assert enqueue_batch(fake_redis, ledger, "ninth") == queues[5]


def test_default_collection_takes_the_queue_of_earlier_versions(fake_redis: Redis, ledger: Ledger) -> None:
    assert enqueue_batch(fake_redis, ledger, "default") == BATCH_QUEUE == "match-batch"


def test_single_adds_of_all_collections_share_a_queue(ledger: Ledger) -> None:
    results = [
        result
        for name in ("a", "b")
        for result in ledger.enqueue([AddItem(filepath="1", url=URL)], queue=SINGLE_QUEUE, collection=name)
    ]

    assert [result.queue for result in results if isinstance(result, EnqueueResult)] == [SINGLE_QUEUE] * 2


def test_open_tasks_are_counted_by_collection(fake_redis: Redis, ledger: Ledger) -> None:
    stored, failed, cancelled, _left = enqueue(
        ledger, [AddItem(filepath=f"{number}", url=URL) for number in range(4)], collection="shop"
    )
    enqueue(ledger, [AddItem(filepath="1", url=URL)])

    succeed(ledger, stored.id)
    fail(ledger, failed.id)
    ledger.cancel_many([cancelled.id])
    before = open_tasks(fake_redis)
    ledger.retry([failed.id])

    assert before == {b"shop": b"1", b"default": b"1"}
    assert open_tasks(fake_redis) == {b"shop": b"2", b"default": b"1"}


def test_without_open_tasks_nothing_is_kept_of_a_collection(fake_redis: Redis, ledger: Ledger) -> None:
    enqueue_batch(fake_redis, ledger, "shop")
    # The count of an earlier version's worker is missing.
    fake_redis.hincrby(OPEN_BY_COLLECTION, "lost", 7)
    [task] = enqueue(ledger, [AddItem(filepath="1", url=URL)], collection="other")

    succeed(ledger, task.id, *[id_.decode() for id_ in fake_redis.zrange("match:open", 0, -1)])

    assert open_tasks(fake_redis) == {}
    assert fake_redis.hgetall(BATCH_QUEUE_OF) == {}


def test_quota_limits_the_open_tasks_of_a_collection(ledger: Ledger) -> None:
    items = [AddItem(filepath=f"{number}", url=URL) for number in range(3)]
    enqueue(ledger, items[:1], collection="shop")

    results = ledger.enqueue(items, queue=SINGLE_QUEUE, collection="shop", max_open=3)

    assert [isinstance(result, EnqueueResult) for result in results] == [True, True, False]
    assert results[-1] is NotEnqueued.QUOTA
