"""Says no to new work before Redis is full: a full one could not even be emptied any more."""

from threading import Lock
from time import monotonic

from redis import Redis

from common.errors import Overloaded
from common.redis_client import RETRY_AFTER_S, redis_errors

# Between two looks at Redis's memory: what a second of adds can take is far below what is left free.
LOOK_EVERY_S = 1.0


class Admission:
    """Watches the memory of the Redis that holds the uploads.

    `max_percent` is the share of its maxmemory that may be used; without a maxmemory nothing is refused.
    """

    def __init__(self, redis: Redis, *, max_percent: int) -> None:
        self._redis = redis
        self._max_percent = max_percent
        self._looking = Lock()
        self._looked = float("-inf")
        self._used_percent = 0.0

    def check(self) -> None:
        """Raise Overloaded when Redis is too full for new work."""
        if monotonic() - self._looked >= LOOK_EVERY_S:
            self._look()
        if self._used_percent > self._max_percent:
            raise Overloaded(f"Redis has used {self._used_percent:.0f} % of its memory", retry_after=RETRY_AFTER_S)

    def _look(self) -> None:
        """Look, unless another thread does: nobody queues behind a Redis that does not answer."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._used_percent = self._measure()
            self._looked = monotonic()
        finally:
            self._looking.release()

    def _measure(self) -> float:
        with redis_errors():
            memory = self._redis.info("memory")
        most = int(memory.get("maxmemory", 0))
        return 100 * int(memory["used_memory"]) / most if most else 0.0
