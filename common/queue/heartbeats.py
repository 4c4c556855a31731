"""Heartbeats of the workers, by Redis's clock."""

from collections.abc import Mapping
from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.scripts import script
from common.redis.client import redis_errors
from common.redis.clock import milliseconds

EVERY_S = 3.0
# For statistics: workers of an earlier version send a heartbeat every 10 s, of which two may be late or lost.
ALIVE_FOR_S = 30.0
# Time after which a dead worker is forgotten. Its messages are redelivered long before.
KEEP_S = 86_400


class Heartbeats:
    """The heartbeats of all workers.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._beat = script(redis, "heartbeat", alive_ms=int(ALIVE_FOR_S * 1000), keep_ms=KEEP_S * 1000)

    def beat(self, name: str) -> None:
        """Record that the worker of this name is alive."""
        with redis_errors():
            self._beat(name=name)

    def end(self, name: str) -> None:
        """Remove the worker of this name: it has stopped, or its work is restarted."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrem(keys.WORKERS, name)
            pipe.zrem(keys.WATCHED_WORKERS, name)
            pipe.execute()

    def ages_s(self) -> Mapping[str, float]:
        """Return the seconds since the last heartbeat, by worker; negative if the clock was set back."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            pipe.zrange(keys.WATCHED_WORKERS, 0, -1, withscores=True)
            time, rows = cast("tuple[tuple[int, int], list[tuple[bytes, float]]]", pipe.execute())
        now = milliseconds(time)
        return {name.decode(): (now - beat) / 1000 for name, beat in rows}
