"""Which workers live: each says so now and then, by Redis's clock."""

from redis import Redis

from common.redis.client import redis_errors
from common.redis.lua import NOW_MS

WORKERS = "match:workers"
EVERY_S = 10.0
# Two that are late or lost are no death.
ALIVE_FOR_S = 30.0

# ARGV: name, how long one is alive after its beat (ms). The first write frees memory: a full Redis lets it through.
_BEAT = (
    NOW_MS
    + """
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
-- Written before the clock was set back.
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + ARGV[2], '+inf')
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)


class Heartbeats:
    """The beats of all workers.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it refuses.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._beat = redis.register_script(_BEAT)

    def beat(self, name: str) -> None:
        """Say that the worker of this name lives."""
        with redis_errors():
            self._beat(keys=[WORKERS], args=[name, int(ALIVE_FOR_S * 1000)])

    def end(self, name: str) -> None:
        """Say that it ends."""
        with redis_errors():
            self._redis.zrem(WORKERS, name)
