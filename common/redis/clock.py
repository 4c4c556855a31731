"""Redis's clock, by which all processes set timestamps."""

from redis import Redis

from common.redis.client import redis_errors


def now_ms(redis: Redis) -> int:
    """Return the time in milliseconds since 1970.

    Raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """
    with redis_errors():
        return milliseconds(redis.time())


def milliseconds(time: tuple[int, int]) -> int:
    """Return a reply of TIME, seconds and microseconds, in milliseconds."""
    seconds, microseconds = time
    return seconds * 1000 + microseconds // 1000
