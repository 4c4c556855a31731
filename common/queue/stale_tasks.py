"""Open tasks by the time at which they were last enqueued, for the sweeper."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.scripts import script
from common.queue.tasks import QueuedTask
from common.redis.client import redis_errors


class StaleTasks:
    """Finds open tasks that were enqueued long ago.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._touch = script(redis, "touch")
        self._reset_future_timestamps = script(redis, "reset_future_timestamps")

    def enqueued_before(self, at: int, *, offset: int, limit: int) -> list[QueuedTask]:
        """Return open tasks last enqueued before `at` (ms since 1970), the oldest first."""
        with redis_errors():
            rows = cast(
                "list[tuple[bytes, float]]",
                self._redis.zrangebyscore(keys.OPEN, "-inf", f"({at}", start=offset, num=limit, withscores=True),
            )
            pipe = self._redis.pipeline(transaction=False)
            for task_id, _ in rows:
                pipe.hget(keys.TASK + task_id.decode(), "queue")
            queues = cast("list[bytes | None]", pipe.execute())
        return [
            QueuedTask(task_id=task_id.decode(), queue=queue.decode(), enqueued_at=int(enqueued_at))
            for (task_id, enqueued_at), queue in zip(rows, queues, strict=True)
            if queue is not None
        ]

    def touch(self, tasks: Sequence[QueuedTask], *, at: int) -> list[QueuedTask]:
        """Set the time of enqueueing to `at`, and return the tasks that the caller must enqueue.

        The other tasks were closed meanwhile, touched by another caller, or wait for a slot of their host.
        """
        if not tasks:
            return []
        with redis_errors():
            reply = self._touch(*(part for task in tasks for part in (task.task_id, task.enqueued_at)), enqueued_at=at)
        touched = {task_id.decode() for task_id in cast("list[bytes]", reply)}
        return [replace(task, enqueued_at=at) for task in tasks if task.task_id in touched]

    def reset_future_timestamps(self, *, limit: int) -> int:
        """Set future times of enqueueing to now, because Redis's clock was set back; return the number of tasks."""
        with redis_errors():
            return int(cast("int", self._reset_future_timestamps(limit=limit)))
