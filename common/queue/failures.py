"""The list of failed tasks, for the retention of tasks and uploads."""

from collections.abc import Sequence
from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.scripts import script
from common.redis.client import redis_errors


class Failures:
    """Failed tasks by the time of their failure.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._evict_uploads = script(redis, "evict_uploads")

    def after(self, at: int, *, limit: int) -> list[tuple[str, int]]:
        """Return ids and times of failures after `at` (ms since 1970), the oldest first."""
        with redis_errors():
            rows = cast(
                "list[tuple[bytes, float]]",
                self._redis.zrangebyscore(keys.FAILED, f"({at}", "+inf", start=0, num=limit, withscores=True),
            )
        return [(task_id.decode(), int(failed_at)) for task_id, failed_at in rows]

    def evict_uploads(self, task_ids: Sequence[str]) -> list[str]:
        """Mark the failed ones among these tasks as without an upload, which excludes a retry; return their ids."""
        if not task_ids:
            return []
        with redis_errors():
            return [task_id.decode() for task_id in cast("list[bytes]", self._evict_uploads(*task_ids))]

    def remove_before(self, at: int) -> None:
        """Remove failures before `at` (ms since 1970) from the list; the tasks themselves expire."""
        with redis_errors():
            self._redis.zremrangebyscore(keys.FAILED, "-inf", f"({at}")
