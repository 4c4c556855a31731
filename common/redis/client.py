"""How Match talks to Redis: clients with time-outs, and Redis's errors as ours."""

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
# How the errors begin that say: not now. A full disk, too few replicas, a failover, a script that takes long.
PASSING = {"MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY"}


class _Connection(Connection):
    """A connection that tells the circuit breaker whether Redis answers."""

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
        # Behind Sentinels redis-py keeps a connection whose answer may yet come, as that to the next command.
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
    """The same, to whichever Redis the Sentinels name."""


class _Pool(ConnectionPool):
    """Connections to one Redis; while it is silent, one caller at a time asks whether it is back."""

    def __init__(self, *, breaker: CircuitBreaker, socket_timeout: float, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
        self._breaker = breaker
        self._answer_within_s = socket_timeout
        super().__init__(breaker=breaker, socket_timeout=socket_timeout, **kwargs)

    def get_connection(self, *args: Any, **kwargs: Any) -> Connection:  # noqa: ANN401
        if self._breaker.is_open:
            if not self._breaker.may_probe(answer_within_s=self._answer_within_s):
                raise TimeoutError("Redis was silent a moment ago")
            # Those at hand may be as dead as the one that got no answer: a new one asks.
            self.disconnect(inuse_connections=False)
        return super().get_connection(*args, **kwargs)


class _PrimaryPool(_Pool, SentinelConnectionPool):
    """The same, to whichever Redis the Sentinels name."""


# Threads bound connections, not the pool, which by itself has 100 and refuses whoever comes after.
MOST_CONNECTIONS = 4096


def connect(url: str, *, answer_within_s: float = ANSWER_WITHIN_S) -> Redis:
    """Return a thread-safe client that answers in bytes; nothing is opened before its first command."""
    options: dict[str, Any] = {
        "breaker": CircuitBreaker(),
        "socket_timeout": answer_within_s,
        "socket_connect_timeout": answer_within_s,
        "socket_keepalive": True,
        "max_connections": MOST_CONNECTIONS,
        # One more try at once hides a connection that an idle time-out or a restart had closed, or that leads to what
        # was the primary before a failover. A Redis that is silent is not asked twice: whoever waits has waited long
        # enough.
        "retry": Retry(ExponentialBackoff(base=0.05, cap=0.2), 1, supported_errors=(ConnectionError, ReadOnlyError)),
    }
    if url.startswith(f"{SCHEME}://"):
        return Redis.from_pool(_primary_pool(Sentinels.parse(url), options))
    connection = _TlsConnection if url.startswith("rediss://") else _Connection
    return Redis.from_pool(_Pool.from_url(url, connection_class=connection, **options))


def sentinel_options(sentinels: Sentinels) -> dict[str, Any]:
    """Return how the Sentinels themselves are spoken to: they answer at once, and another is asked if one does not."""
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
    except ReadOnlyError as error:
        raise QueueUnavailable("Redis is a replica now") from error
    except RedisError as error:
        # What stands before is the command, with whatever its sender sent: nothing for a log.
        code = str(error).rpartition(" caused error: ")[2].partition(" ")[0]
        if code in PASSING:
            message = f"Redis cannot write now: {code}"
            raise QueueUnavailable(message) from None
        message = f"Redis refused a command: {code}"
        raise QueueError(message) from None
