"""Heartbeats of the workers, by Redis's clock."""

from redis import Redis

from common.queue import keys
from common.queue.scripts import script
from common.redis.client import redis_errors

EVERY_S = 10.0
# Two heartbeats may be late or lost.
ALIVE_FOR_S = 30.0


class Heartbeats:
    """The heartbeats of all workers.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._beat = script(redis, "heartbeat", alive_ms=int(ALIVE_FOR_S * 1000))

    def beat(self, name: str) -> None:
        """Record that the worker of this name is alive."""
        with redis_errors():
            self._beat(name=name)

    def end(self, name: str) -> None:
        """Remove the worker of this name: it has stopped."""
        with redis_errors():
            self._redis.zrem(keys.WORKERS, name)
