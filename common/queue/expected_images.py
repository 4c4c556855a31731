"""Images that may still be stored: their tasks are open, or failed and can be retried."""

from typing import cast

from redis import Redis

from common.queue.scripts import script
from common.redis.client import redis_errors

# Tasks that a call scans; it takes about two milliseconds, in which Redis does nothing else.
MAX_SCANNED = 2000


class ExpectedImages:
    """The filepaths of tasks that may still store an image."""

    def __init__(self, redis: Redis, *, max_scanned: int = MAX_SCANNED) -> None:
        self._may_store = script(redis, "may_store", max_scanned=max_scanned)

    def may_arrive(self, filepath: str, *, collection: str) -> bool:
        """Return whether a task may still store this filepath; with more than `max_scanned` tasks it is true.

        Raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
        """
        with redis_errors():
            return bool(cast("int", self._may_store(collection=collection, filepath=filepath)))
