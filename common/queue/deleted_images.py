"""Deletions of selected images: an add of an earlier request that a worker begins later is not stored."""

import json
from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.jobs import ImageSelection
from common.queue.scripts import script
from common.redis.client import redis_errors


class DeletedImages:
    """The deletions of images by the start of their filepaths and by metadata, of all collections.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._mark = script(redis, "mark_images_deleted")

    def mark(self, collection: str, selection: ImageSelection, *, seq: int) -> bool:
        """Record a deletion, and return whether an add of an earlier request is running, which may still store."""
        # With the sequence number, equal selections are deletions of their own.
        member = json.dumps({"seq": seq, **selection.to_json()}, sort_keys=True)
        prefix = selection.filepath_prefix
        with redis_errors():
            return bool(cast("int", self._mark(collection=collection, filepath_prefix=prefix, seq=seq, member=member)))

    def unmark(self, collection: str, *, seq: int) -> None:
        """Forget a deletion that was cancelled while it ran; the script `cancel` does so if it was pending."""
        with redis_errors():
            self._redis.zremrangebyscore(keys.DELETED_IMAGES_OF + collection, seq, seq)

    def remove_before(self, seq: int) -> None:
        """Forget deletions by requests before `seq`: no older task can begin any more."""
        with redis_errors():
            names = cast("list[bytes]", self._redis.zrange(keys.DELETED_IMAGES, 0, -1))
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.zremrangebyscore(keys.DELETED_IMAGES_OF + name.decode(), "-inf", f"({seq}")
            pipe.zremrangebyscore(keys.DELETED_IMAGES, "-inf", f"({seq}")
            pipe.execute()
