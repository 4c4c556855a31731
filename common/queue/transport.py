"""kombu's Redis transport, cheaper by message: one client a channel, and bookkeeping without transactions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError  # noqa: A004 - the client's own name

from common.redis.insisting import InsistingClient


class QoS(redis.QoS):
    """kombu's note of what a worker holds, written and taken back in one round trip but in no transaction.

    A transaction's two commands more are a tenth of a worker's CPU for a message. What only half arrives, because Redis
    ends in the middle, the ledger's sweeper sends again.
    """

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:  # noqa: ANN401 - kombu's own
        """Yield `pipe`, or a pipeline of our own; see kombu."""
        if pipe:
            # Somebody's transaction.
            yield pipe
        else:
            with self.channel.conn_or_acquire(client) as acquired:
                yield acquired.pipeline(transaction=False)


class Channel(redis.Channel):
    """A channel that keeps its client.

    A client is only a face of the connection pool, safe for many threads, but redis-py takes a tenth of a millisecond
    to make one: twice a message, that was a twentieth of a worker's CPU.
    """

    QoS = QoS
    _kept: Any = None

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's own interface
        if self.connection.client is None:
            # Closed after a loss, with messages in hand: kombu would fail on the None, and the worker would end.
            raise ConnectionError("the connection to Redis was closed")
        return super()._connparams(asynchronous=asynchronous)  # type: ignore[no-untyped-call]

    def _get_client(self) -> Any:  # noqa: ANN401 - kombu's own interface
        return InsistingClient

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's own interface
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        # After a lost connection kombu makes a new pool: the old one's client goes with it.
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()  # type: ignore[no-untyped-call]
        return self._kept


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same, to whichever Redis the Sentinels name."""


class Transport(redis.Transport):
    """kombu's transport, with such channels."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """The same, behind Sentinels."""

    Channel = SentinelChannel
