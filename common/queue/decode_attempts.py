"""Counts of attempts to decode an image, which detect poison images: those that crash the worker."""

from collections.abc import Sequence
from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.scripts import script
from common.redis.client import redis_errors


class DecodeAttempts:
    """Counts the attempts that did not finish, by task.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._start = script(redis, "start_decode")

    def start(self, task_id: str, *, decoded: str = "") -> int:
        """Count one more attempt, and return the number of unfinished ones, including this one.

        `decoded` is the task whose image the same process decoded last: its attempts are cleared.
        """
        with redis_errors():
            return int(cast("int", self._start(id=task_id, decoded_id=decoded)))

    def clear(self, task_ids: Sequence[str]) -> None:
        """Clear the attempts of these tasks: their images were decoded."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for task_id in task_ids:
                pipe.hdel(keys.TASK + task_id, "risks")
            pipe.execute()
