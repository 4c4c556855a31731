"""Uploads in a Redis: the queue's own, or one beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.admission import Admission
from common.redis.client import redis_errors
from common.redis.scripts import Script
from common.uploads.base import CROWDED_SHARE, UNCLAIMED_S, is_claim, new_claim, no_room

FOLDER = Path(__file__).parent / "lua"


class RedisUploads:
    """Uploads in Redis; `room` watches its memory, `max_bytes` is the most that may be held.

    `unclaimed_s` is how long bytes live that are never kept.
    """

    def __init__(self, redis: Redis, *, room: Admission, max_bytes: int, unclaimed_s: float = UNCLAIMED_S) -> None:
        self._redis = redis
        self._room = room
        self._max_bytes = max_bytes
        self._unclaimed_ms = int(unclaimed_s * 1000)
        self._count = Script(redis, FOLDER / "count.lua", {**keys.IN_SCRIPTS, "max_bytes": max_bytes})
        self._keep = Script(redis, FOLDER / "keep.lua", keys.IN_SCRIPTS)
        self._drop = Script(redis, FOLDER / "drop.lua", keys.IN_SCRIPTS)
        self._held = Script(redis, FOLDER / "held_bytes.lua", keys.IN_SCRIPTS)

    def put(self, data: bytes) -> str:
        """Store `data` for a day and return its claim check."""
        self._room.check(len(data))
        claim = new_claim()
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(_key(claim), data, px=self._unclaimed_ms)
            self._count.queue_in(pipe, upload_id=claim, keep_ms=self._unclaimed_ms)
            fits = pipe.execute()[-1]
        if not fits:
            raise no_room()
        return claim

    def keep(self, *claims: str) -> None:
        """Let the bytes stay until they are dropped."""
        with redis_errors():
            self._keep(*claims)

    def get(self, claim: str) -> bytes | None:
        """Return the bytes, or None when they are gone."""
        with redis_errors():
            data = self._redis.get(_key(claim))
        return data if isinstance(data, bytes) else None

    def there(self, claims: Sequence[str]) -> set[str]:
        """Return those of the claims whose bytes are there."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for claim in claims:
                pipe.exists(_key(claim))
            found = pipe.execute()
        return {claim for claim, is_there in zip(claims, found, strict=True) if is_there}

    def drop(self, claims: Sequence[str], *, after_s: float = 0) -> None:
        """Forget the bytes, at once or `after_s` seconds from now."""
        if not claims:
            return
        with redis_errors():
            self._drop(*claims, after_ms=int(after_s * 1000))

    def held_bytes(self) -> int:
        """Return how many bytes are held."""
        with redis_errors():
            return cast("int", self._held())

    def is_crowded(self) -> bool:
        """Say whether there soon will be no room."""
        return self._room.is_crowded() or self.held_bytes() > CROWDED_SHARE * self._max_bytes

    def purge(self) -> None:
        """Do nothing: Redis forgets by itself."""

    def close(self) -> None:
        """Give back the connections."""
        self._redis.close()


def _key(claim: str) -> str:
    return keys.UPLOAD + claim if is_claim(claim) else "match:nothing"
