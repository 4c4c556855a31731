"""How Match talks to Redis: clients with time-outs, and Redis's errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - the client's own name
    OutOfMemoryError,
    RedisError,
    TimeoutError,  # noqa: A004 - the client's own name
)
from redis.retry import Retry

from common.errors import Overloaded, QueueError, QueueUnavailable

ANSWER_WITHIN_S = 5.0
RETRY_AFTER_S = 5


def connect(url: str) -> Redis:
    """Return a thread-safe client that answers in bytes; nothing is opened before its first command."""
    return Redis.from_url(
        url,
        socket_timeout=ANSWER_WITHIN_S,
        socket_connect_timeout=ANSWER_WITHIN_S,
        socket_keepalive=True,
        # One more try at once hides a connection that an idle time-out or a restart had closed. A Redis that is silent
        # is not asked twice: whoever waits has waited long enough.
        retry=Retry(ExponentialBackoff(base=0.05, cap=0.2), 1, supported_errors=(ConnectionError,)),
    )


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn Redis's errors into ours; their texts name no credential."""
    try:
        yield
    except OutOfMemoryError as error:
        raise Overloaded("Redis has no memory left", retry_after=RETRY_AFTER_S) from error
    except (AuthenticationError, AuthorizationError) as error:
        raise QueueUnavailable("Redis refuses our credentials") from error
    except BusyLoadingError as error:
        raise QueueUnavailable("Redis is loading its data") from error
    except (ConnectionError, TimeoutError) as error:
        raise QueueUnavailable("Redis does not answer") from error
    except RedisError as error:
        raise QueueError("Redis refused a command") from error
