"""Dead workers: found by their heartbeats, never while Redis is silent, and their messages are in the queue again."""

import json
import logging
from base64 import b64encode
from itertools import count
from math import ceil

import pytest
from redis import Redis

from common.errors import QueueUnavailable
from common.queue.heartbeats import Heartbeats
from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE, WORKER_PROPERTY
from common.queue.keys import UNACKED, UNACKED_INDEX, WATCHED_WORKERS
from common.queue.unacked import Unacked
from common.redis.clock import now_ms
from support.waiting import wait_until
from workers import dead_workers
from workers.dead_workers import LOOK_EVERY_S, SETTLE_S, Absences, DeadWorkers

TAGS = count()


def looks(absences: Absences, ages_s: list[float], *, since: float = 0.0) -> list[bool]:
    """Return whether each look finds the worker dead, by the ages of its last heartbeat."""
    return [
        bool(absences.look({"one": age_s}, now=since + number * LOOK_EVERY_S)) for number, age_s in enumerate(ages_s)
    ]


def test_worker_is_dead_at_the_third_absence() -> None:
    assert looks(Absences(), [3.9, 5.9, 7.9, 9.9]) == [False, False, False, True]


def test_a_heartbeat_between_two_looks_starts_the_count_again() -> None:
    assert looks(Absences(), [4.5, 6.5, 1.0, 4.5, 6.5]) == [False] * 5


def test_heartbeats_from_before_a_backward_clock_are_absences() -> None:
    assert looks(Absences(), [-3600.0, -3600.0, -3600.0]) == [False, False, True]


def test_no_worker_is_dead_right_after_a_silence() -> None:
    absences = Absences()
    looks(absences, [60.0, 60.0])

    absences.forget(now=60.0)

    settling = ceil(SETTLE_S / LOOK_EVERY_S)
    assert looks(absences, [60.0] * settling, since=60.0) == [False] * settling
    assert looks(absences, [60.0] * 3, since=60.0 + SETTLE_S) == [False, False, True]


def test_looks_after_a_stop_of_the_process_start_again() -> None:
    absences = Absences()
    looks(absences, [4.5, 6.5])

    assert absences.look({"one": 66.0}, now=66.0) == []


def test_a_failed_look_forgets_the_absences(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = DeadWorkers(Heartbeats(fake_redis), Unacked(fake_redis), lambda: 0, own_name="me")
    fake_redis.zadd(WATCHED_WORKERS, {"dead": now_ms(fake_redis) - 60_000})
    looked = [watch._look(), watch._look()]

    def silent(_heartbeats: Heartbeats) -> dict[str, float]:
        raise QueueUnavailable("Redis does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(Heartbeats, "ages_s", silent)
        with pytest.raises(QueueUnavailable):
            watch._look()

    assert [*looked, *(watch._look() for _ in range(5))] == [[]] * 7


def test_a_worker_does_not_look_for_itself(fake_redis: Redis) -> None:
    watch = DeadWorkers(Heartbeats(fake_redis), Unacked(fake_redis), lambda: 0, own_name="me")
    fake_redis.zadd(WATCHED_WORKERS, dict.fromkeys(["me", "dead"], now_ms(fake_redis) - 60_000))

    looked = [watch._look() for _ in range(3)]

    assert looked == [[], [], ["dead"]]


def receive(redis: Redis, task_id: str, *, worker: str | None, queue: str = SINGLE_QUEUE) -> str:
    """Record a message as unacknowledged, as kombu does, and return its entry."""
    tag = f"tag {next(TAGS)}"
    body = b64encode(json.dumps([[task_id], {}, {}]).encode()).decode()
    properties = {} if worker is None else {WORKER_PROPERTY: worker}
    entry = json.dumps([{"body": body, "headers": {"id": task_id}, "properties": properties}, "", queue])
    redis.hset(UNACKED, tag, entry)
    redis.zadd(UNACKED_INDEX, {tag: 1})
    return entry


def test_messages_of_a_dead_worker_precede_the_others(fake_redis: Redis) -> None:
    fake_redis.lpush(BATCH_QUEUE, "waiting")
    dead = json.loads(receive(fake_redis, "a", worker="dead", queue=BATCH_QUEUE))[0]
    receive(fake_redis, "b", worker="alive")
    receive(fake_redis, "c", worker=None)
    receive(fake_redis, "d", worker="dead", queue="of another program")

    restored = Unacked(fake_redis).restore(["dead"])

    assert restored == 1
    assert json.loads(fake_redis.rpop(BATCH_QUEUE) or b"") == dead
    assert fake_redis.rpop(BATCH_QUEUE) == b"waiting"
    assert Unacked(fake_redis).task_ids() == {"b", "c", "d"}


def test_a_message_is_restored_once_by_all(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(fake_redis, "a", worker="dead")
    read = Unacked._entries
    other = Unacked(fake_redis)

    def both(unacked: Unacked) -> dict[bytes, bytes]:
        entries = read(unacked)
        # Another worker restores the message that this one has just read.
        monkeypatch.setattr(Unacked, "_entries", read)
        other.restore(["dead"])
        return entries

    monkeypatch.setattr(Unacked, "_entries", both)

    assert Unacked(fake_redis).restore(["dead"]) == 0
    assert fake_redis.llen(SINGLE_QUEUE) == 1


def test_work_of_a_dead_worker_is_restarted_once(
    fake_redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(dead_workers, "LOOK_EVERY_S", 0.01)
    receive(fake_redis, "a", worker="dead")
    fake_redis.zadd(WATCHED_WORKERS, {"dead": now_ms(fake_redis) - 60_000})
    swept: list[int] = []

    def sweep() -> int:
        swept.append(int(fake_redis.llen(SINGLE_QUEUE)))
        return 2

    watch = DeadWorkers(Heartbeats(fake_redis), Unacked(fake_redis), sweep, own_name="me")
    watch.start()
    wait_until(lambda: "dead workers" in caplog.text)
    watch.close()

    # Lost tasks are found while the queue has no older messages.
    assert swept == [0]
    assert "1 dead workers: 1 messages are in the queue again, and 2 lost ones (dead)" in caplog.text
    assert fake_redis.llen(SINGLE_QUEUE) == 1
    assert fake_redis.zcard(WATCHED_WORKERS) == 0
