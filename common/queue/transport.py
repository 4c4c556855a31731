"""kombu's Redis transport with less CPU per message: one client per channel, and no transactions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from common.queue.jobs import WORKER_PROPERTY
from common.redis.oom_exempt import OomExemptClient

# The transport's option with the name of the worker.
WORKER_OPTION = "worker_name"


class QoS(redis.QoS):
    """kombu's record of unacknowledged messages, written in one round trip but without a transaction.

    The two additional commands of a transaction take a tenth of a worker's CPU per message. If Redis stops between two
    of the commands, the sweeper enqueues the task again. Each message has the name of its worker, so that others find
    the messages of a dead one.
    """

    def append(self, message: Any, delivery_tag: str) -> None:  # noqa: ANN401 - kombu's own
        """Record a message that this worker has received; see kombu."""
        message._raw["properties"][WORKER_PROPERTY] = self.channel.worker_name  # noqa: SLF001 - kombu records this object
        super().append(message, delivery_tag)  # type: ignore[no-untyped-call]

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:  # noqa: ANN401 - kombu's own
        """Yield `pipe`, or a new pipeline; see kombu."""
        if pipe:
            yield pipe
        else:
            with self.channel.conn_or_acquire(client) as acquired:
                yield acquired.pipeline(transaction=False)


class Channel(redis.Channel):
    """A channel that reuses its client.

    A client only wraps the connection pool and is thread-safe, but redis-py takes 0.1 ms to create one. kombu creates
    two per message, a twentieth of a worker's CPU.
    """

    QoS = QoS
    from_transport_options = (*redis.Channel.from_transport_options, WORKER_OPTION)  # type: ignore[assignment]
    worker_name: str | None = None
    _reused_client: Any = None

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's own interface
        if self.connection.client is None:
            # The connection was lost before acknowledgements. kombu would fail on the None, and the worker would exit.
            raise RedisConnectionError("the connection to Redis was closed")
        return super()._connparams(asynchronous=asynchronous)  # type: ignore[no-untyped-call]

    def _get_client(self) -> Any:  # noqa: ANN401 - kombu's own interface
        return OomExemptClient

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's own interface
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        # After a lost connection kombu creates a new pool, which needs a new client.
        if self._reused_client is None or self._reused_client.connection_pool is not self.pool:
            self._reused_client = super()._create_client()  # type: ignore[no-untyped-call]
        return self._reused_client


class SentinelChannel(Channel, redis.SentinelChannel):
    """The channel for a Redis behind Sentinels."""

    from_transport_options = (*redis.SentinelChannel.from_transport_options, WORKER_OPTION)  # type: ignore[assignment]


class Transport(redis.Transport):
    """kombu's Redis transport with this channel."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """kombu's Sentinel transport with this channel."""

    Channel = SentinelChannel
