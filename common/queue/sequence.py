"""Sequence numbers of the requests that change the store."""

from typing import cast

from redis import Redis

from common.queue.scripts import script
from common.redis.client import redis_errors


class SequenceNumbers:
    """Strictly increasing numbers, also after Redis has lost data or the clock was set back."""

    def __init__(self, redis: Redis) -> None:
        self._next = script(redis, "next_sequence_number")

    def next(self) -> int:
        """Return the next sequence number.

        Raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
        """
        with redis_errors():
            return int(cast("int", self._next()))
