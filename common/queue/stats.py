"""Statistics of the queue, read from Redis."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from redis import Redis

from common.queue.callbacks import CallbackState
from common.queue.heartbeats import ALIVE_FOR_S
from common.queue.jobs import CONSUMED_QUEUES
from common.queue.keys import (
    CALLBACK_COUNTS,
    CALLBACK_OLDEST,
    DEFERRED,
    ENDED,
    ENDED_TASKS,
    FAILED,
    OPEN,
    OPEN_BY_COLLECTION,
    PAUSED,
    RUNNING,
    TASK,
    WORKERS,
)
from common.queue.tasks import NEW_CODES, State
from common.redis.client import redis_errors
from common.redis.clock import milliseconds

# Open tasks are sorted by the time at which they were last enqueued, not by their age. After all of them were enqueued
# again, because the store was unavailable, any of the first may be the oldest.
CANDIDATES = 100
MINUTE_MS = 60_000
# The states of finished work whose tasks are listed by minute; failed ones are in a list of their own.
DONE = (State.SUCCEEDED, State.SUPERSEDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """State of the queue at one time.

    `queues` is the number of messages by queue, `callbacks` the number of callbacks by state. `ended` is the number of
    finished tasks since Redis was empty, by state and by the code of their error or warning. An age is 0 without open
    tasks or pending callbacks. `open_by_collection` has only collections with open tasks. `rate_per_s` is the mean
    number of tasks that ended in this minute and the last one. `deferred` is the number of open tasks that wait for
    their host.
    """

    queues: Mapping[str, int]
    open: int
    deferred: int
    in_flight: int
    failed: int
    workers: int
    oldest_age_s: float
    ended: Mapping[tuple[str, str], int]
    callbacks: Mapping[CallbackState, int]
    oldest_callback_age_s: float
    open_by_collection: Mapping[str, int]
    rate_per_s: float = 0.0
    is_paused: bool = False

    @property
    def waiting(self) -> int:
        """The open tasks that do not run."""
        # They are counted one after the other.
        return max(0, self.open - self.in_flight)


def read_stats(redis: Redis) -> QueueStats:
    """Read the statistics in two round trips.

    Raises QueueError when Redis does not answer or rejects a command.
    """
    with redis_errors():
        pipe = redis.pipeline(transaction=False)
        pipe.time()
        pipe.zcard(OPEN)
        pipe.zcard(DEFERRED)
        pipe.zcard(RUNNING)
        pipe.zcard(FAILED)
        pipe.hgetall(ENDED)
        pipe.zrange(OPEN, 0, CANDIDATES - 1)
        pipe.zrange(WORKERS, 0, -1, withscores=True)
        pipe.hgetall(CALLBACK_COUNTS)
        pipe.zrange(CALLBACK_OLDEST, 0, 0, withscores=True)
        pipe.hgetall(OPEN_BY_COLLECTION)
        pipe.exists(PAUSED)
        for queue in CONSUMED_QUEUES:
            pipe.llen(queue)
        first = pipe.execute()
        time, opened, deferred, running, failed, ended, oldest, *others = first
        workers, calls, pending, by_collection, paused, *lengths = others
        now_ms = milliseconds(time)
        for task_id in oldest:
            pipe.hget(TASK + task_id.decode(), "accepted")
        minute = now_ms // MINUTE_MS
        for state in DONE:
            pipe.llen(f"{ENDED_TASKS}{state}:{minute}")
            pipe.llen(f"{ENDED_TASKS}{state}:{minute - 1}")
        pipe.zcount(FAILED, (minute - 1) * MINUTE_MS, now_ms)
        second = pipe.execute()
        accepted = [int(at) for at in second[: len(oldest)] if at is not None]
        recent = sum(second[len(oldest) :])
    return QueueStats(
        queues=dict(zip(CONSUMED_QUEUES, lengths, strict=True)),
        open=opened,
        deferred=deferred,
        in_flight=running,
        failed=failed,
        workers=sum(beat > now_ms - ALIVE_FOR_S * 1000 for _, beat in workers),
        oldest_age_s=_age_s(accepted, now_ms),
        ended=_ended({name.decode(): int(count) for name, count in ended.items()}),
        callbacks={state: int(calls.get(state.encode(), 0)) for state in CallbackState},
        oldest_callback_age_s=_age_s([ended_at for _, ended_at in pending], now_ms),
        open_by_collection={name.decode(): int(count) for name, count in by_collection.items()},
        rate_per_s=recent * 1000 / (now_ms - (minute - 1) * MINUTE_MS),
        is_paused=bool(paused),
    )


def _age_s(times_ms: Iterable[float], now_ms: int) -> float:
    return max(0.0, (now_ms - min(times_ms, default=now_ms)) / 1000)


def _ended(counts: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Return the counts by state and code; those of a former code are added to the code that replaced it."""
    totals: dict[tuple[str, str], int] = {}
    for name, count in counts.items():
        state, _, code = name.partition(":")
        key = state, NEW_CODES.get(code, code)
        totals[key] = totals.get(key, 0) + count
    return totals
