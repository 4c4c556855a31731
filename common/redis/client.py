"""Redis clients with time-outs and a circuit breaker, and the translation of redis-py's errors to QueueError."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Connection, ConnectionPool, Redis, SSLConnection
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection

from common.circuit_breaker import CircuitBreaker
from common.errors import Overloaded, QueueError, QueueUnavailable
from common.redis.sentinels import SCHEME, Sentinels

ANSWER_WITHIN_S = 5.0
SENTINEL_WITHIN_S = 1.0
RETRY_AFTER_S = 5
# Codes of transient errors: a full disk, too few replicas, a failover, a slow script.
TRANSIENT = {"MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY"}


class _Connection(Connection):
    """A connection that reports to the circuit breaker whether Redis answers."""

    def __init__(self, *args: Any, breaker: CircuitBreaker, socket_timeout: float, **kwargs: Any) -> None:  # noqa: ANN401 - passed on unchanged
        self._breaker = breaker
        self._answer_within_s = socket_timeout
        super().__init__(*args, socket_timeout=socket_timeout, **kwargs)  # type: ignore[no-untyped-call]  # redis-py has no type for it

    def connect(self) -> None:
        with self._reporting_timeouts():
            super().connect()  # type: ignore[no-untyped-call]

    def send_packed_command(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        with self._reporting_timeouts():
            super().send_packed_command(*args, **kwargs)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        # With Sentinels, redis-py keeps a connection after a time-out, and the next command would read the late reply.
        kwargs.setdefault("disconnect_on_error", True)
        with self._reporting_timeouts():
            response = super().read_response(*args, **kwargs)
        self._breaker.reset()
        return response

    @contextmanager
    def _reporting_timeouts(self) -> Iterator[None]:
        try:
            yield
        except RedisTimeoutError:
            self._breaker.trip(waited_s=self._answer_within_s)
            raise


class _TlsConnection(_Connection, SSLConnection):
    """A connection with TLS."""


class _PrimaryConnection(_Connection, SentinelManagedConnection):
    """A connection to the primary that the Sentinels name."""


class _Pool(ConnectionPool):
    """A pool of connections to one Redis; while it does not answer, one caller at a time probes it."""

    def __init__(self, *, breaker: CircuitBreaker, socket_timeout: float, **kwargs: Any) -> None:  # noqa: ANN401 - passed on unchanged
        self._breaker = breaker
        self._answer_within_s = socket_timeout
        super().__init__(breaker=breaker, socket_timeout=socket_timeout, **kwargs)

    def get_connection(self, *args: Any, **kwargs: Any) -> Connection:  # noqa: ANN401
        if self._breaker.is_open:
            if not self._breaker.may_probe(answer_within_s=self._answer_within_s):
                raise RedisTimeoutError("Redis did not answer a moment ago")
            # The idle connections may be dead too: probe with a new one.
            self.disconnect(inuse_connections=False)
        return super().get_connection(*args, **kwargs)


class _PrimaryPool(_Pool, SentinelConnectionPool):
    """A pool of connections to the primary that the Sentinels name."""


# The number of threads limits the connections. The pool must not: beyond its default maximum of 100 it raises.
MAX_CONNECTIONS = 4096


def connect(url: str, *, answer_within_s: float = ANSWER_WITHIN_S) -> Redis:
    """Return a thread-safe client with replies in bytes; it connects at its first command."""
    options: dict[str, Any] = {
        "breaker": CircuitBreaker(),
        "socket_timeout": answer_within_s,
        "socket_connect_timeout": answer_within_s,
        "socket_keepalive": True,
        "max_connections": MAX_CONNECTIONS,
        # One retry hides a connection that an idle time-out or a restart has closed, or one to the old primary after a
        # failover. A time-out is not retried: the caller has waited long enough.
        "retry": Retry(
            ExponentialBackoff(base=0.05, cap=0.2), 1, supported_errors=(RedisConnectionError, ReadOnlyError)
        ),
    }
    if url.startswith(f"{SCHEME}://"):
        return Redis.from_pool(_primary_pool(Sentinels.parse(url), options))
    connection = _TlsConnection if url.startswith("rediss://") else _Connection
    return Redis.from_pool(_Pool.from_url(url, connection_class=connection, **options))


def sentinel_options(sentinels: Sentinels) -> dict[str, Any]:
    """Return the options of connections to Sentinels; after a short time-out the next Sentinel is asked."""
    return {
        "socket_timeout": SENTINEL_WITHIN_S,
        "socket_connect_timeout": SENTINEL_WITHIN_S,
        "password": sentinels.sentinel_password,
    }


def _primary_pool(sentinels: Sentinels, options: dict[str, Any]) -> _PrimaryPool:
    return _PrimaryPool(
        service_name=sentinels.service,
        sentinel_manager=Sentinel(  # type: ignore[no-untyped-call]
            sentinels.hosts, sentinel_kwargs=sentinel_options(sentinels)
        ),
        connection_class=_PrimaryConnection,
        db=sentinels.db,
        username=sentinels.username,
        password=sentinels.password,
        **options,
    )


@contextmanager
def redis_errors() -> Iterator[None]:
    """Raise redis-py's errors as QueueError or a subclass, with texts that contain no credential."""
    try:
        yield
    except OutOfMemoryError as error:
        raise Overloaded("Redis has no memory left", retry_after=RETRY_AFTER_S) from error
    except (AuthenticationError, AuthorizationError) as error:
        raise QueueUnavailable("Redis rejects the credentials") from error
    except BusyLoadingError as error:
        raise QueueUnavailable("Redis is loading its data") from error
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise QueueUnavailable("Redis does not answer") from error
    except ReadOnlyError as error:
        raise QueueUnavailable("Redis is a replica now") from error
    except RedisError as error:
        # The text before the code is the command with its arguments, which must not be logged.
        code = str(error).rpartition(" caused error: ")[2].partition(" ")[0]
        if code in TRANSIENT:
            message = f"Redis cannot write now: {code}"
            raise QueueUnavailable(message) from None
        message = f"Redis rejected a command: {code}"
        raise QueueError(message) from None
