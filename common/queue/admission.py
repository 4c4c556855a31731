"""Admission control: rejects new work before Redis is full, because workers need memory to finish the accepted work."""

from threading import Lock
from time import monotonic

from redis import Redis

from common.errors import Overloaded
from common.redis.client import RETRY_AFTER_S, redis_errors

# The longest time between two measurements of Redis's memory.
MEASURE_EVERY_S = 1.0
# Memory is measured earlier when this share of the free memory was used since: other processes accept work too.
MEASURE_AFTER_SHARE = 1 / 16
# A task, its message and their entries in sets and lists, without metadata: about three times the measured size.
TASK_BYTES = 4096
# Percentage points below the limit at which the eviction of uploads of older failures begins.
NEARLY_FULL_PERCENT = 5


class Admission:
    """Admission control by the memory of one Redis.

    `max_percent` is the share of its maxmemory that may be used; without a maxmemory nothing is rejected.
    """

    def __init__(self, redis: Redis, *, max_percent: int) -> None:
        self._redis = redis
        self._max_percent = max_percent
        self._measuring = Lock()
        self._measured_at = float("-inf")
        self._used = 0.0
        self._max = 0.0
        self._admitted = 0.0

    def check(self, new_bytes: int = TASK_BYTES) -> None:
        """Raise Overloaded when Redis lacks the memory for `new_bytes` more."""
        due = self._admitted + new_bytes > MEASURE_AFTER_SHARE * self._free()
        if due or monotonic() - self._measured_at >= MEASURE_EVERY_S:
            self._measure()
        if self._admitted + new_bytes > self._free():
            raise Overloaded(f"Redis has used {self._percent():.0f} % of its memory", retry_after=RETRY_AFTER_S)
        # Two threads may lose an addition. The next measurement corrects the sum.
        self._admitted += new_bytes

    def is_nearly_full(self) -> bool:
        """Return whether new work is rejected, or soon will be."""
        self._measure()
        return self._percent() > self._max_percent - NEARLY_FULL_PERCENT

    def _free(self) -> float:
        return self._max * self._max_percent / 100 - self._used if self._max else float("inf")

    def _percent(self) -> float:
        return 100 * (self._used + self._admitted) / self._max if self._max else 0.0

    def _measure(self) -> None:
        """Measure, unless another thread is measuring: threads do not wait for each other's call to a slow Redis."""
        if not self._measuring.acquire(blocking=False):
            return
        try:
            with redis_errors():
                memory = self._redis.info("memory")
            self._used, self._max = int(memory["used_memory"]), int(memory.get("maxmemory", 0))
            self._admitted = 0.0
            self._measured_at = monotonic()
        finally:
            self._measuring.release()
