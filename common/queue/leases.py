"""Leases: each gives one process at a time the right to an action."""

from redis import Redis

from common.queue import keys
from common.queue.scripts import script
from common.redis.client import redis_errors


class Leases:
    """Leases by name; a lease expires and is not released."""

    def __init__(self, redis: Redis) -> None:
        self._acquire = script(redis, "acquire_lease")

    def acquire(self, name: str, *, for_s: float) -> bool:
        """Acquire the lease for `for_s` seconds; return False if a process holds it.

        Raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
        """
        with redis_errors():
            return bool(self._acquire(lease_key=keys.LEASE + name, lease_ms=int(for_s * 1000)))
