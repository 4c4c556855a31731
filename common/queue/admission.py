"""Says no to new work before Redis is full: a full one could not even be emptied any more."""

from threading import Lock
from time import monotonic

from redis import Redis

from common.errors import Overloaded
from common.redis.client import RETRY_AFTER_S, redis_errors

# Between two looks at Redis's memory, at most.
LOOK_EVERY_S = 1.0
# And sooner, when this share of the room that was seen is given away: other processes give, too.
LOOK_AFTER_SHARE = 1 / 16
# A task, its message and their places in sets and lists, without metadata: about three times what was measured.
TASK_BYTES = 4096
# From here on older failures make room for new work, in points of percent below the most.
CROWDED_PERCENT = 5


class Admission:
    """Watches the memory of one Redis.

    `max_percent` is the share of its maxmemory that may be used; without a maxmemory nothing is refused.
    """

    def __init__(self, redis: Redis, *, max_percent: int) -> None:
        self._redis = redis
        self._max_percent = max_percent
        self._looking = Lock()
        self._looked = float("-inf")
        self._used = 0.0
        self._most = 0.0
        self._given = 0.0

    def check(self, coming_bytes: int = TASK_BYTES) -> None:
        """Raise Overloaded when Redis is too full for new work that needs so much."""
        room = self._room()
        if self._given + coming_bytes > LOOK_AFTER_SHARE * room or monotonic() - self._looked >= LOOK_EVERY_S:
            self._look()
        if self._given + coming_bytes > self._room():
            raise Overloaded(f"Redis has used {self._percent():.0f} % of its memory", retry_after=RETRY_AFTER_S)
        # Lost when two threads add at once: a little more is given than was counted, a sixteenth of the room is little.
        self._given += coming_bytes

    def is_crowded(self) -> bool:
        """Say whether new work is, or soon will be, refused."""
        self._look()
        return self._percent() > self._max_percent - CROWDED_PERCENT

    def _room(self) -> float:
        return self._most * self._max_percent / 100 - self._used if self._most else float("inf")

    def _percent(self) -> float:
        return 100 * (self._used + self._given) / self._most if self._most else 0.0

    def _look(self) -> None:
        """Look, unless another thread does: nobody queues behind a Redis that does not answer."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            with redis_errors():
                memory = self._redis.info("memory")
            self._used, self._most = int(memory["used_memory"]), int(memory.get("maxmemory", 0))
            self._given = 0.0
            self._looked = monotonic()
        finally:
            self._looking.release()
