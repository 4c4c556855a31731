"""Deleted collections: no task of an earlier request begins after the deletion."""

from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.scripts import script
from common.redis.client import redis_errors


class DeletedCollections:
    """The sequence number of the last deletion of each collection.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._mark = script(redis, "mark_deleted")

    def mark(self, collection: str, *, seq: int) -> bool:
        """Record a deletion, and return whether a task of an earlier request is running, which may still store."""
        with redis_errors():
            return bool(cast("int", self._mark(collection=collection, seq=seq)))

    def remove_before(self, seq: int) -> None:
        """Forget deletions by requests before `seq`: no older task can begin any more."""
        with redis_errors():
            self._redis.zremrangebyscore(keys.DELETED_COLLECTIONS, "-inf", f"({seq}")
