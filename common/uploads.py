"""Uploaded bytes between the doors: the message carries a claim check, Redis the bytes."""

import secrets
from collections.abc import Sequence

from redis import Redis

from common.redis_client import redis_errors

# What an API leaves behind that dies before it accepts the job goes after this long. It is long because of the other
# case: one that dies between accepting and `keep`, whose task then waits behind a backlog.
UNCLAIMED_S = 86_400


class Uploads:
    """Bytes by claim check. Every method raises QueueUnavailable, or Overloaded when Redis is full."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def put(self, data: bytes) -> str:
        """Store `data` for a day and return its claim check; `keep` makes it stay."""
        claim = secrets.token_hex(16)
        with redis_errors():
            self._redis.set(_key(claim), data, ex=UNCLAIMED_S)
        return claim

    def keep(self, claim: str) -> None:
        """Let the bytes stay until they are dropped: a job that was accepted needs them."""
        with redis_errors():
            self._redis.persist(_key(claim))

    def get(self, claim: str) -> bytes | None:
        """Return the bytes, or None when they are gone."""
        with redis_errors():
            data = self._redis.get(_key(claim))
        return data if isinstance(data, bytes) else None

    def drop(self, claims: Sequence[str], *, after_s: int = 0) -> None:
        """Forget the bytes, at once or `after_s` seconds from now."""
        if not claims:
            return
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for claim in claims:
                pipe.expire(_key(claim), after_s)
            pipe.execute()


def _key(claim: str) -> str:
    return f"match:upload:{claim}"
