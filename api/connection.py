"""A connection to a client, as gunicorn's threads see it."""

import errno
import logging
import socket
from time import monotonic
from typing import IO, Any

from gunicorn.http import RequestParser
from gunicorn.workers.gthread import TConn
from werkzeug.exceptions import RequestTimeout

from api.arrival import Arriving, Patience

log = logging.getLogger(__name__)

# A thread is not held longer by a client that takes no bytes of its reply, nor by one that takes less of it in all that
# time than it must send of a request.
SEND_WITHIN_S = 10.0
# No time at all would make the socket one that never waits.
LEAST_S = 0.001
# A client that just keeps up takes so many well within that time.
SEND_BYTES = 32 * 1024


class Reader(socket.socket):
    """The socket of a client that has to read its replies in time."""

    def __init__(self, taken: socket.socket) -> None:
        super().__init__(taken.family, taken.type, taken.proto, taken.detach())
        self.patience = Patience(SEND_WITHIN_S)

    def sendall(self, data: Any, flags: int = 0) -> None:  # noqa: ANN401 - the base class's
        """Send everything; raises BrokenPipeError for a client that takes it too slowly, as for one that has gone."""
        view = memoryview(data)
        for start in range(0, len(view), SEND_BYTES):
            self._send(view[start : start + SEND_BYTES], flags)

    def _send(self, piece: memoryview, flags: int) -> None:
        begun = monotonic()
        self.settimeout(max(self.patience.left_s, LEAST_S))
        try:
            super().sendall(piece, flags)
        except TimeoutError as error:
            log.info("a client that did not read its reply is cut off")
            raise BrokenPipeError(errno.EPIPE, "its reply is not read") from error
        self.patience.waited(monotonic() - begun, len(piece))


class Source:
    """What a request is read from: the bytes that came before a thread began with it, then, if it streams, its client.

    The time that we take between two reads is no fault of the client.
    """

    def __init__(self, sock: socket.socket, came: IO[bytes], patience: Patience | None) -> None:
        self._sock = sock
        self._came = came
        self._patience = patience

    def recv(self, size: int) -> bytes:
        """Return up to so many bytes, none at the end; raises RequestTimeout for a client that is too slow."""
        return self._came.read(size) or (b"" if self._patience is None else self._wait(size, self._patience))

    def _wait(self, size: int, patience: Patience) -> bytes:
        if patience.left_s <= 0:
            raise RequestTimeout
        begun, usual = monotonic(), self._sock.gettimeout()
        self._sock.settimeout(patience.left_s)
        try:
            data = self._sock.recv(size)
        except TimeoutError as error:
            patience.waited(patience.left_s, 0)
            raise RequestTimeout from error
        finally:
            self._sock.settimeout(usual)
        patience.waited(monotonic() - begun, len(data))
        return data


class Parser(RequestParser):
    """gunicorn's, for one request."""

    def __init__(self, cfg: Any, source: Source | None, client: Any, *, is_last: bool) -> None:  # noqa: ANN401 - gunicorn's
        super().__init__(cfg, source, client)  # type: ignore[arg-type]  # whatever has recv()
        self._is_last = is_last

    def __next__(self) -> Any:  # noqa: ANN401 - the same
        request = super().__next__()
        if self._is_last:
            # The reply's headers say so.
            request.force_close()
        return request


class Connection(TConn):
    """A connection whose requests are there, or stream, before a thread begins with them."""

    def __init__(self, cfg: Any, sock: Reader, client: Any, server: Any) -> None:  # noqa: ANN401 - gunicorn's
        super().__init__(cfg, sock, client, server)
        self._reader = sock
        # There is data whenever a thread is asked to read.
        self.data_ready = True
        self.arriving: Arriving | None = None
        self.patience = Patience(0)
        self.source: Source | None = None
        # When it last sent something, and when an idle one is closed; by the monotonic clock.
        self.heard_at = 0.0
        self.closes_at = 0.0
        self.behind = b""
        # Whether the connection ends with its request, as what may still come of that is nobody's to read.
        self.is_last = False
        self.left_to_drain = 0

    def init(self) -> None:
        """Let gunicorn read the request that is there; it calls this for each one, in the thread."""
        self.initialized = True
        self._reader.patience = Patience(SEND_WITHIN_S)
        # One parser a request: nothing of one is read as another's.
        self.parser = Parser(self.cfg, self.source, self.client, is_last=self.is_last)

    def forget_request(self) -> None:
        """Give back what the request took."""
        if self.arriving is not None:
            self.arriving.close()
        self.arriving = self.source = None
