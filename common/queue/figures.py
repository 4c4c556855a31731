"""How much waits, runs and ended: what Redis knows of the service, for its metrics."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from redis import Redis

from common.queue.callbacks import CallState
from common.queue.heartbeats import ALIVE_FOR_S
from common.queue.jobs import WORKED_QUEUES
from common.queue.keys import CALLBACK_COUNTS, CALLBACK_OLDEST, ENDED, FAILED, OPEN, RUNNING, TASK, WORKERS
from common.redis.client import redis_errors

# Open tasks stand in the order in which they were last sent. Those sent first are the oldest, or have been given back
# since, as all of them are while the store is away: among so many of them the oldest is found.
LOOKED_AT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What Redis knows at one moment.

    `queues` are the messages that wait in each queue, `ended` how often tasks ended by state and code, since Redis
    began to count. `oldest_age_s` is 0 where nothing is open. `called` are the callbacks that wait, as pending, and how
    many came to each other state; `oldest_call_age_s` is how long the oldest of them has waited, 0 where none does.
    """

    queues: Mapping[str, int]
    open: int
    in_flight: int
    failed: int
    workers: int
    oldest_age_s: float
    ended: Mapping[tuple[str, str], int]
    called: Mapping[CallState, int]
    oldest_call_age_s: float


def read(redis: Redis) -> Figures:
    """Ask Redis, in two round trips.

    Raises QueueError when it does not answer or refuses.
    """
    with redis_errors():
        pipe = redis.pipeline(transaction=False)
        pipe.time()
        pipe.zcard(OPEN)
        pipe.zcard(RUNNING)
        pipe.zcard(FAILED)
        pipe.hgetall(ENDED)
        pipe.zrange(OPEN, 0, LOOKED_AT - 1)
        pipe.zrange(WORKERS, 0, -1, withscores=True)
        pipe.hgetall(CALLBACK_COUNTS)
        pipe.zrange(CALLBACK_OLDEST, 0, 0, withscores=True)
        for queue in WORKED_QUEUES:
            pipe.llen(queue)
        (seconds, micros), opened, running, failed, ended, oldest, workers, called, uncalled, *lengths = pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        for task_id in oldest:
            pipe.hget(TASK + task_id.decode(), "accepted")
        accepted = [int(at) for at in pipe.execute() if at is not None]
    return Figures(
        queues=dict(zip(WORKED_QUEUES, lengths, strict=True)),
        open=opened,
        in_flight=running,
        failed=failed,
        workers=sum(beat > now_ms - ALIVE_FOR_S * 1000 for _, beat in workers),
        oldest_age_s=_age_s(accepted, now_ms),
        ended={_split(name.decode()): int(count) for name, count in ended.items()},
        called={state: int(called.get(state.encode(), 0)) for state in CallState},
        oldest_call_age_s=_age_s([ended_at for _, ended_at in uncalled], now_ms),
    )


def _age_s(times_ms: Iterable[float], now_ms: int) -> float:
    return max(0.0, (now_ms - min(times_ms, default=now_ms)) / 1000)


def _split(name: str) -> tuple[str, str]:
    state, _, code = name.partition(":")
    return state, code
