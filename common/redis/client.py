"""Redis clients with time-outs and a circuit breaker, and Redis's errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Connection, ConnectionPool, Redis, SSLConnection
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - the client's own name
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,  # noqa: A004 - the client's own name
)
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection

from common.circuit_breaker import CircuitBreaker
from common.errors import Overloaded, QueueError, QueueUnavailable
from common.redis.sentinels import SCHEME, Sentinels

ANSWER_WITHIN_S = 5.0
SENTINEL_WITHIN_S = 1.0
RETRY_AFTER_S = 5
# Codes of errors that will pass: a full disk, too few replicas, a failover, a script that takes long.
TRANSIENT = {"MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY"}


class _Connection(Connection):
    """A connection that reports to the circuit breaker whether Redis answers."""

    def __init__(self, *args: Any, breaker: CircuitBreaker, socket_timeout: float, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
        self._breaker = breaker
        self._answer_within_s = socket_timeout
        super().__init__(*args, socket_timeout=socket_timeout, **kwargs)  # type: ignore[no-untyped-call]  # redis-py's own have no types

    def connect(self) -> None:
        with self._watched():
            super().connect()  # type: ignore[no-untyped-call]

    def send_packed_command(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        with self._watched():
            super().send_packed_command(*args, **kwargs)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        # With Sentinels, redis-py keeps a connection whose reply is late: the next command would read it as its own.
        kwargs.setdefault("disconnect_on_error", True)
        with self._watched():
            response = super().read_response(*args, **kwargs)
        self._breaker.reset()
        return response

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            self._breaker.trip(waited_s=self._answer_within_s)
            raise


class _TlsConnection(_Connection, SSLConnection):
    """The same, with TLS."""


class _PrimaryConnection(_Connection, SentinelManagedConnection):
    """The same, to the primary that the Sentinels name."""


class _Pool(ConnectionPool):
    """Connections to one Redis; while it does not answer, one caller at a time probes it."""

    def __init__(self, *, breaker: CircuitBreaker, socket_timeout: float, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
        self._breaker = breaker
        self._answer_within_s = socket_timeout
        super().__init__(breaker=breaker, socket_timeout=socket_timeout, **kwargs)

    def get_connection(self, *args: Any, **kwargs: Any) -> Connection:  # noqa: ANN401
        if self._breaker.is_open:
            if not self._breaker.may_probe(answer_within_s=self._answer_within_s):
                raise TimeoutError("Redis did not answer a moment ago")
            # Idle connections may be as dead as the one that got no reply: probe with a new one.
            self.disconnect(inuse_connections=False)
        return super().get_connection(*args, **kwargs)


class _PrimaryPool(_Pool, SentinelConnectionPool):
    """The same, to the primary that the Sentinels name."""


# The number of threads limits connections. The pool must not: its default is 100, and then it raises.
MAX_CONNECTIONS = 4096


def connect(url: str, *, answer_within_s: float = ANSWER_WITHIN_S) -> Redis:
    """Return a thread-safe client with replies in bytes; it connects at its first command."""
    options: dict[str, Any] = {
        "breaker": CircuitBreaker(),
        "socket_timeout": answer_within_s,
        "socket_connect_timeout": answer_within_s,
        "socket_keepalive": True,
        "max_connections": MAX_CONNECTIONS,
        # One retry hides a connection that an idle time-out or a restart has closed, or that leads to the old primary
        # after a failover. There is no retry after a time-out: the caller has waited long enough.
        "retry": Retry(ExponentialBackoff(base=0.05, cap=0.2), 1, supported_errors=(ConnectionError, ReadOnlyError)),
    }
    if url.startswith(f"{SCHEME}://"):
        return Redis.from_pool(_primary_pool(Sentinels.parse(url), options))
    connection = _TlsConnection if url.startswith("rediss://") else _Connection
    return Redis.from_pool(_Pool.from_url(url, connection_class=connection, **options))


def sentinel_options(sentinels: Sentinels) -> dict[str, Any]:
    """Return the options of connections to Sentinels: those answer at once, or the next one is asked."""
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
    """Raise Redis's errors as ours; their texts contain no credential."""
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
    except ReadOnlyError as error:
        raise QueueUnavailable("Redis is a replica now") from error
    except RedisError as error:
        # The part before is the command with its arguments, which must not be logged.
        code = str(error).rpartition(" caused error: ")[2].partition(" ")[0]
        if code in TRANSIENT:
            message = f"Redis cannot write now: {code}"
            raise QueueUnavailable(message) from None
        message = f"Redis refused a command: {code}"
        raise QueueError(message) from None
