"""Uploads in a Redis: the queue's own, or one beside it.

Keys, all under `match:`

- `upload:<claim>`: the bytes; they expire unless they were kept
- `upload-bytes`: how many are held
- `upload-ends`: sorted set of `<claim>:<size>` of those that expire, by when they do (ms): what Redis has forgotten by
  itself is taken off the sum by this
"""

from collections.abc import Sequence
from typing import cast

from redis import Redis

from common.queue.admission import Admission
from common.redis.client import redis_errors
from common.redis.lua import EVEN_WHEN_FULL, NOW_MS
from common.uploads.base import CROWDED_SHARE, UNCLAIMED_S, is_claim, new_claim, no_room

# What is done with these makes room.
_TOOLS = (
    EVEN_WHEN_FULL
    + NOW_MS
    + """
local UPLOAD, BYTES, ENDS = 'match:upload:', 'match:upload-bytes', 'match:upload-ends'

local function count(bytes)
  -- Never below nothing: Redis may have lost the end of its file, the sum with it.
  if redis.call('INCRBY', BYTES, bytes) < 0 then redis.call('SET', BYTES, 0) end
end

local function forget_ended()
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', ENDS, '-inf', '(' .. now_ms(), 'LIMIT', 0, 1000)) do
    redis.call('ZREM', ENDS, member)
    count(-tonumber(string.match(member, ':(%d+)$')))
  end
end

local function end_at(claim, ends)
  local key = UPLOAD .. claim
  redis.call('PEXPIREAT', key, ends)
  redis.call('ZADD', ENDS, ends, claim .. ':' .. redis.call('STRLEN', key))
end
"""
)

# ARGV: claim, milliseconds to live, most bytes. The bytes stand there already: a script that is given them would hold
# them a second time. Returns 0 when they are too many.
_COUNT = (
    _TOOLS
    + """
local size = redis.call('STRLEN', UPLOAD .. ARGV[1])
forget_ended()
-- One whose first answer was lost is sent again by the client, and was counted then.
if not redis.call('ZSCORE', ENDS, ARGV[1] .. ':' .. size) then
  if (tonumber(redis.call('GET', BYTES)) or 0) + size > tonumber(ARGV[3]) then
    redis.call('DEL', UPLOAD .. ARGV[1])
    return 0
  end
  count(size)
end
end_at(ARGV[1], now_ms() + ARGV[2])
return 1
"""
)

_KEEP = (
    _TOOLS
    + """
for _, claim in ipairs(ARGV) do
  redis.call('PERSIST', UPLOAD .. claim)
  redis.call('ZREM', ENDS, claim .. ':' .. redis.call('STRLEN', UPLOAD .. claim))
end
"""
)

# ARGV: milliseconds to live on, then the claims.
_DROP = (
    _TOOLS
    + """
for i = 2, #ARGV do
  local claim, key = ARGV[i], UPLOAD .. ARGV[i]
  if redis.call('EXISTS', key) == 1 then
    if tonumber(ARGV[1]) > 0 then
      end_at(claim, now_ms() + ARGV[1])
    else
      local size = redis.call('STRLEN', key)
      redis.call('DEL', key)
      redis.call('ZREM', ENDS, claim .. ':' .. size)
      count(-size)
    end
  end
end
"""
)

_HELD = _TOOLS + "forget_ended() return tonumber(redis.call('GET', BYTES)) or 0"


class RedisUploads:
    """Uploads in Redis; `room` watches its memory, `max_bytes` is the most that may be held.

    `unclaimed_s` is how long bytes live that are never kept.
    """

    def __init__(self, redis: Redis, *, room: Admission, max_bytes: int, unclaimed_s: float = UNCLAIMED_S) -> None:
        self._redis = redis
        self._room = room
        self._max_bytes = max_bytes
        self._unclaimed_ms = int(unclaimed_s * 1000)
        self._keep = redis.register_script(_KEEP)
        self._drop = redis.register_script(_DROP)
        self._held = redis.register_script(_HELD)

    def put(self, data: bytes) -> str:
        """Store `data` for a day and return its claim check."""
        self._room.check(len(data))
        claim = new_claim()
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(_key(claim), data, px=self._unclaimed_ms)
            # Its text, not its hash: a pipeline would ask for that first, in a round trip more.
            pipe.eval(_COUNT, 0, claim, self._unclaimed_ms, self._max_bytes)
            fits = pipe.execute()[-1]
        if not fits:
            raise no_room()
        return claim

    def keep(self, *claims: str) -> None:
        """Let the bytes stay until they are dropped."""
        with redis_errors():
            self._keep(args=claims)

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
            self._drop(args=[int(after_s * 1000), *claims])

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
    return f"match:upload:{claim}" if is_claim(claim) else "match:nothing"
