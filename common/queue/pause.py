"""The pause of the queue: workers take no new tasks while it is set. It is in Redis, so it survives restarts."""

from redis import Redis

from common.queue.keys import PAUSED
from common.redis.client import redis_errors


class Pause:
    """The pause, for all workers.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def set(self) -> None:
        """Pause the queue."""
        with redis_errors():
            self._redis.set(PAUSED, 1)

    def clear(self) -> None:
        """Resume the queue."""
        with redis_errors():
            self._redis.delete(PAUSED)

    def is_set(self) -> bool:
        """Return whether the queue is paused."""
        with redis_errors():
            return bool(self._redis.exists(PAUSED))
