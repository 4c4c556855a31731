"""Deleted collections: no task of an earlier request begins after the deletion."""

from typing import cast

from redis import Redis

from common.collection_names import DEFAULT_COLLECTION
from common.queue import keys
from common.queue.scripts import script
from common.redis.client import redis_errors

# Deferred tasks that one step reads.
PAGE = 500


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

    def end_waits(self, collection: str, *, seq: int) -> None:
        """Let deferred tasks of requests before the collection's deletion begin now: they end without their host."""
        cursor = -1
        while cursor != 0:
            with redis_errors():
                reply = self._redis.zscan(keys.DEFERRED, max(0, cursor), count=PAGE)
                cursor, rows = cast("tuple[int, list[tuple[bytes, float]]]", reply)
                pipe = self._redis.pipeline(transaction=False)
                for task_id, _ in rows:
                    pipe.hmget(keys.TASK + task_id.decode(), "collection", "seq")
                fields = cast("list[tuple[bytes | None, bytes | None]]", pipe.execute())
                due = {
                    task_id: 0
                    for (task_id, _), (name, its_seq) in zip(rows, fields, strict=True)
                    if (name or DEFAULT_COLLECTION.encode()) == collection.encode() and int(its_seq or 0) < seq
                }
                if due:
                    self._redis.zadd(keys.DEFERRED, due, xx=True)
