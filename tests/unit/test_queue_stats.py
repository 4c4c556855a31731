"""Statistics of the queue: tasks, callbacks and workers in Redis."""

from collections.abc import Callable

import pytest
from redis import Redis

from common.errors import QueueUnavailable
from common.queue.callbacks import CallbackState
from common.queue.heartbeats import ALIVE_FOR_S, Heartbeats
from common.queue.items import AddItem
from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE
from common.queue.keys import CALLBACK_OLDEST, ENDED, OPEN, TASK, WORKERS
from common.queue.ledger import Ledger
from common.queue.stats import read_stats
from common.redis.client import connect
from common.redis.clock import now_ms
from support.tasks import enqueue, fail, succeed

JOB = AddItem(filepath="a", url="http://example.org/a.jpg")


@pytest.fixture
def accept(ledger: Ledger) -> Callable[[int], list[str]]:
    return lambda count: [task.id for task in enqueue(ledger, [JOB] * count)]


def test_empty_redis_has_no_counts(fake_redis: Redis) -> None:
    stats = read_stats(fake_redis)

    assert (stats.open, stats.in_flight, stats.failed, stats.workers, stats.oldest_age_s, stats.ended) == (
        *(0, 0, 0, 0, 0.0, {}),
    )
    assert (stats.callbacks, stats.oldest_callback_age_s) == (dict.fromkeys(CallbackState, 0), 0.0)
    assert set(stats.queues.values()) == {0}


def test_tasks_are_counted_by_state(fake_redis: Redis, ledger: Ledger, accept: Callable[..., list[str]]) -> None:
    ids = accept(6)
    ledger.begin(ids[0])
    fail(ledger, ids[1], code="too_large", error="too large")
    succeed(ledger, ids[2])
    fake_redis.lpush(BATCH_QUEUE, "one", "two")

    stats = read_stats(fake_redis)

    assert (stats.open, stats.in_flight, stats.failed) == (4, 1, 1)
    assert stats.ended == {("failed", "too_large"): 1, ("succeeded", ""): 1}
    assert (stats.queues[BATCH_QUEUE], stats.queues[SINGLE_QUEUE]) == (2, 0)


def test_open_tasks_are_counted_by_their_collection(fake_redis: Redis, ledger: Ledger) -> None:
    for name, count in (("default", 1), ("shop", 2)):
        enqueue(ledger, [JOB] * count, collection=name)

    assert read_stats(fake_redis).open_by_collection == {"default": 1, "shop": 2}


def test_counts_of_former_codes_are_added_to_new_ones(fake_redis: Redis) -> None:
    fake_redis.hset(ENDED, mapping={"failed:image_ends_worker": 2, "failed:decoder_crashed": 1})

    stats = read_stats(fake_redis)

    assert stats.ended == {("failed", "decoder_crashed"): 3}


def test_age_counts_from_acceptance_when_task_is_enqueued_again(
    fake_redis: Redis, accept: Callable[..., list[str]]
) -> None:
    old, _ = accept(2)
    fake_redis.hincrby(TASK + old, "accepted", -60_000)
    fake_redis.zadd(OPEN, {old: now_ms(fake_redis) + 1})

    stats = read_stats(fake_redis)

    assert 60 <= stats.oldest_age_s < 120


def test_oldest_callback_is_found_among_all_urls(fake_redis: Redis) -> None:
    fake_redis.zadd(CALLBACK_OLDEST, {"https://a.example.org:443/": now_ms(fake_redis) - 60_000})
    fake_redis.zadd(CALLBACK_OLDEST, {"https://b.example.org:443/": now_ms(fake_redis) - 1_000})

    stats = read_stats(fake_redis)

    assert 60 <= stats.oldest_callback_age_s < 120


def test_worker_counts_from_first_heartbeat_to_last(fake_redis: Redis) -> None:
    beats = Heartbeats(fake_redis)
    beats.beat("one")
    beats.beat("one")
    beats.beat("two")

    beats.end("two")

    assert read_stats(fake_redis).workers == 1


def test_worker_without_recent_heartbeat_is_removed(fake_redis: Redis) -> None:
    beats = Heartbeats(fake_redis)
    now = now_ms(fake_redis)
    fake_redis.zadd(WORKERS, {"silent": now - (ALIVE_FOR_S + 1) * 1000, "ahead": now + (ALIVE_FOR_S + 1) * 1000})

    beats.beat("here")

    assert fake_redis.zrange(WORKERS, 0, -1) == [b"here"]


def test_unavailable_redis_is_an_error() -> None:
    with pytest.raises(QueueUnavailable):
        read_stats(connect("redis://127.0.0.1:1/0"))
