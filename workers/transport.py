"""kombu's Redis transport with one client a channel, where the original makes a new one for nearly every command."""

from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):
    """A channel that keeps its client.

    A client is only a face of the connection pool, safe for many threads, but redis-py takes a tenth of a millisecond
    to make one: twice a message, that was a twentieth of a worker's CPU.
    """

    _kept: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's own interface
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        # After a lost connection kombu makes a new pool: the old one's client goes with it.
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()  # type: ignore[no-untyped-call]
        return self._kept


class Transport(redis.Transport):
    """kombu's transport, with such channels."""

    Channel = Channel
