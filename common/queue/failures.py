"""Failed tasks, for retention: how long they and their uploads are kept."""

from collections.abc import Sequence
from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.scripts import script
from common.redis.client import redis_errors


class Failures:
    """The list of failed tasks, by when they failed.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it refuses.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._evict_uploads = script(redis, "evict_uploads")

    def after(self, at: int, *, limit: int) -> list[tuple[str, int]]:
        """Return ids of tasks that failed after `at` and when they did (ms since 1970), the oldest first."""
        with redis_errors():
            rows = cast(
                "list[tuple[bytes, float]]",
                self._redis.zrangebyscore(keys.FAILED, f"({at}", "+inf", start=0, num=limit, withscores=True),
            )
        return [(task_id.decode(), int(failed_at)) for task_id, failed_at in rows]

    def evict_uploads(self, task_ids: Sequence[str]) -> list[str]:
        """Mark those of these tasks that have failed as without an upload, so that none is retried; return them."""
        if not task_ids:
            return []
        with redis_errors():
            return [task_id.decode() for task_id in cast("list[bytes]", self._evict_uploads(*task_ids))]

    def forget_before(self, at: int) -> None:
        """Remove from the list what failed before `at` (ms since 1970); the tasks themselves expire."""
        with redis_errors():
            self._redis.zremrangebyscore(keys.FAILED, "-inf", f"({at}")
