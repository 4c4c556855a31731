"""Sequence numbers: the order of all requests that change what is stored."""

from typing import cast

from redis import Redis

from common.queue.scripts import script
from common.redis.client import redis_errors


class SequenceNumbers:
    """Numbers that rise from request to request, also after a loss of data and after the clock was set back."""

    def __init__(self, redis: Redis) -> None:
        self._next = script(redis, "next_sequence_number")

    def next(self) -> int:
        """Return the next sequence number.

        Raises QueueUnavailable when Redis does not answer and QueueError when it refuses.
        """
        with redis_errors():
            return int(cast("int", self._next()))
