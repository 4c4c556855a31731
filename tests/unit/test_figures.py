"""What Redis knows of the service: how much waits, runs and ended, and who works."""

from collections.abc import Callable

import pytest
from redis import Redis

from common.errors import QueueUnavailable
from common.queue import figures
from common.queue.callbacks import CallState
from common.queue.heartbeats import ALIVE_FOR_S, Heartbeats
from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE, AddJob
from common.queue.keys import CALLBACK_OLDEST, OPEN, TASK, WORKERS
from common.queue.ledger import Ledger
from common.queue.tasks import State, TaskResult
from common.redis.client import connect
from common.redis.clock import now_ms

JOB = AddJob(filepath="a", url="http://example.org/a.jpg")


@pytest.fixture
def accept(ledger: Ledger) -> Callable[[int], list[str]]:
    return lambda count: [task.id for task in ledger.accept([JOB] * count, queue=SINGLE_QUEUE)]


def test_nothing_at_all_is_nothing(fake_redis: Redis) -> None:
    now = figures.read(fake_redis)

    assert (now.open, now.in_flight, now.failed, now.workers, now.oldest_age_s, now.ended) == (0, 0, 0, 0, 0.0, {})
    assert (now.called, now.oldest_call_age_s) == (dict.fromkeys(CallState, 0), 0.0)
    assert set(now.queues.values()) == {0}


def test_tasks_are_counted_by_where_they_are(
    fake_redis: Redis, ledger: Ledger, accept: Callable[..., list[str]]
) -> None:
    ids = accept(6)
    ledger.begin(ids[0])
    ledger.finish([TaskResult(task_id=ids[1], state=State.FAILED, code="too_large", error="too large")])
    ledger.finish([TaskResult(task_id=ids[2], state=State.SUCCEEDED)])
    fake_redis.lpush(BATCH_QUEUE, "one", "two")

    now = figures.read(fake_redis)

    assert (now.open, now.in_flight, now.failed) == (4, 1, 1)
    assert now.ended == {("failed", "too_large"): 1, ("succeeded", ""): 1}
    assert (now.queues[BATCH_QUEUE], now.queues[SINGLE_QUEUE]) == (2, 0)


def test_the_oldest_task_is_the_one_accepted_first_however_often_it_was_sent_again(
    fake_redis: Redis, accept: Callable[..., list[str]]
) -> None:
    old, _ = accept(2)
    fake_redis.hincrby(TASK + old, "accepted", -60_000)
    fake_redis.zadd(OPEN, {old: now_ms(fake_redis) + 1})

    now = figures.read(fake_redis)

    assert 60 <= now.oldest_age_s < 120


def test_the_oldest_callback_is_the_one_that_has_waited_longest_for_whatever_url(
    fake_redis: Redis,
) -> None:
    fake_redis.zadd(CALLBACK_OLDEST, {"https://a.example.org:443/": now_ms(fake_redis) - 60_000})
    fake_redis.zadd(CALLBACK_OLDEST, {"https://b.example.org:443/": now_ms(fake_redis) - 1_000})

    now = figures.read(fake_redis)

    assert 60 <= now.oldest_call_age_s < 120


def test_a_worker_lives_from_its_first_beat_to_its_end(fake_redis: Redis) -> None:
    beats = Heartbeats(fake_redis)
    beats.beat("one")
    beats.beat("one")
    beats.beat("two")

    beats.end("two")

    assert figures.read(fake_redis).workers == 1


def test_a_worker_that_is_silent_for_long_is_dead_and_forgotten(fake_redis: Redis) -> None:
    beats = Heartbeats(fake_redis)
    now = now_ms(fake_redis)
    fake_redis.zadd(WORKERS, {"silent": now - (ALIVE_FOR_S + 1) * 1000, "ahead": now + (ALIVE_FOR_S + 1) * 1000})

    beats.beat("here")

    assert fake_redis.zrange(WORKERS, 0, -1) == [b"here"]


def test_a_redis_that_is_away_is_told() -> None:
    with pytest.raises(QueueUnavailable):
        figures.read(connect("redis://127.0.0.1:1/0"))
