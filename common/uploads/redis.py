"""Uploads in Redis: that of the queue, or a separate one."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.admission import Admission
from common.redis.client import redis_errors
from common.redis.scripts import Script
from common.uploads.base import NEARLY_FULL_SHARE, UPLOAD_TTL_S, is_upload_id, new_upload_id, out_of_space

FOLDER = Path(__file__).parent / "lua"


class RedisUploads:
    """Uploads in Redis; `admission` checks its memory, and `max_bytes` limits the stored bytes.

    `ttl_s` is the time to live before `keep`.
    """

    def __init__(self, redis: Redis, *, admission: Admission, max_bytes: int, ttl_s: float = UPLOAD_TTL_S) -> None:
        self._redis = redis
        self._admission = admission
        self._max_bytes = max_bytes
        self._ttl_ms = int(ttl_s * 1000)
        self._count = Script(redis, FOLDER / "count.lua", {**keys.SCRIPT_KEYS, "max_bytes": max_bytes})
        self._keep = Script(redis, FOLDER / "keep.lua", keys.SCRIPT_KEYS)
        self._drop = Script(redis, FOLDER / "drop.lua", keys.SCRIPT_KEYS)
        self._stored_bytes = Script(redis, FOLDER / "stored_bytes.lua", keys.SCRIPT_KEYS)

    def put(self, data: bytes) -> str:
        """Store `data` for `ttl_s` and return its id."""
        self._admission.check(len(data))
        upload_id = new_upload_id()
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(_key(upload_id), data, px=self._ttl_ms)
            self._count.queue_in(pipe, upload_id=upload_id, keep_ms=self._ttl_ms)
            fits = pipe.execute()[-1]
        if not fits:
            raise out_of_space()
        return upload_id

    def keep(self, *upload_ids: str) -> None:
        """Keep the bytes until they are dropped."""
        with redis_errors():
            self._keep(*upload_ids)

    def get(self, upload_id: str) -> bytes | None:
        """Return the bytes, or None if they do not exist."""
        with redis_errors():
            data = self._redis.get(_key(upload_id))
        return data if isinstance(data, bytes) else None

    def existing(self, upload_ids: Sequence[str]) -> set[str]:
        """Return the ids whose bytes exist."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for upload_id in upload_ids:
                pipe.exists(_key(upload_id))
            existing = pipe.execute()
        return {upload_id for upload_id, exists in zip(upload_ids, existing, strict=True) if exists}

    def drop(self, upload_ids: Sequence[str], *, after_s: float = 0) -> None:
        """Delete the bytes, at once or `after_s` seconds from now."""
        if not upload_ids:
            return
        with redis_errors():
            self._drop(*upload_ids, after_ms=int(after_s * 1000))

    def stored_bytes(self) -> int:
        """Return the number of stored bytes."""
        with redis_errors():
            return cast("int", self._stored_bytes())

    def is_nearly_full(self) -> bool:
        """Return whether the space has run out, or soon will."""
        return self._admission.is_nearly_full() or self.stored_bytes() > NEARLY_FULL_SHARE * self._max_bytes

    def purge(self) -> None:
        """Do nothing: Redis deletes expired keys."""

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def _key(upload_id: str) -> str:
    return keys.UPLOAD + upload_id if is_upload_id(upload_id) else keys.UNUSED
