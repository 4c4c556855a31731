"""Heartbeats of live workers in Redis, by Redis's clock."""

from redis import Redis

from common.redis.client import redis_errors
from common.redis.lua import NOW_MS

WORKERS = "match:workers"
EVERY_S = 10.0
# A worker may lose two heartbeats and still counts as alive.
ALIVE_FOR_S = 30.0

# ARGV: name, time until a heartbeat expires (ms). The first write frees memory, so a full Redis accepts it.
_BEAT = (
    NOW_MS
    + """
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
-- Heartbeats from before the clock was set back.
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + ARGV[2], '+inf')
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)


class Heartbeats:
    """The heartbeats of all workers.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it refuses.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._beat = redis.register_script(_BEAT)

    def beat(self, name: str) -> None:
        """Record that the worker of this name is alive."""
        with redis_errors():
            self._beat(keys=[WORKERS], args=[name, int(ALIVE_FOR_S * 1000)])

    def end(self, name: str) -> None:
        """Record that it stopped."""
        with redis_errors():
            self._redis.zrem(WORKERS, name)
