"""How much waits, runs and ended: what Redis knows of the service, for its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from common.heartbeats import ALIVE_FOR_S, WORKERS
from common.jobs import WORKED_QUEUES
from common.ledger import ENDED, FAILED, OPEN, RUNNING, TASK
from common.redis_client import redis_errors

# Open tasks stand in the order in which they were last sent. Those sent first are the oldest, or have been given back
# since, as all of them are while the store is away: among so many of them the oldest is found.
LOOKED_AT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What Redis knows at one moment.

    `queues` are the messages that wait in each queue, `ended` how often tasks ended by state and code, since Redis
    began to count. `oldest_age_s` is 0 where nothing is open.
    """

    queues: Mapping[str, int]
    open: int
    in_flight: int
    failed: int
    workers: int
    oldest_age_s: float
    ended: Mapping[tuple[str, str], int]


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
        for queue in WORKED_QUEUES:
            pipe.llen(queue)
        (seconds, micros), opened, running, failed, ended, oldest, workers, *lengths = pipe.execute()
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
        oldest_age_s=max(0.0, (now_ms - min(accepted, default=now_ms)) / 1000),
        ended={_split(name.decode()): int(count) for name, count in ended.items()},
    )


def _split(name: str) -> tuple[str, str]:
    state, _, code = name.partition(":")
    return state, code
