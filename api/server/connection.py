"""A connection to a client, as gunicorn's threads see it."""

import errno
import logging
import socket
from select import POLLOUT, poll
from time import monotonic
from typing import IO, Any

from gunicorn.http import RequestParser
from gunicorn.workers.gthread import TConn
from werkzeug.exceptions import RequestTimeout

from api.server.arrival import Arriving, Patience

log = logging.getLogger(__name__)

# A client that takes no bytes of its reply is cut off after so long, and so is one that takes less of it in all that
# time than it must send of a request.
SEND_WITHIN_S = 10.0
# A reply that comes piece by piece waits for its client when so much of it is unsent: the rest may be long.
STREAM_BYTES = 256 * 1024
NOT_READ = "a client that did not read its reply is cut off"


class Reader(socket.socket):
    """The socket of a client that has to read its replies in time; a thread seldom waits for that.

    What the client does not take at once is kept in `unsent`, whose bytes the loop sends when the thread has gone on to
    the next request: all of a reply that is made as a whole, up to `most_unsent` bytes.
    """

    def __init__(self, taken: socket.socket, *, most_unsent: int) -> None:
        super().__init__(taken.family, taken.type, taken.proto, taken.detach())
        self._most_unsent = most_unsent
        self.unsent = bytearray()
        self.patience = Patience(SEND_WITHIN_S)

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ANN401 - the base class's
        """Send what the client takes at once; raises BrokenPipeError where that is nothing, or it has gone."""
        try:
            return super().send(data, flags | socket.MSG_DONTWAIT)
        except BlockingIOError as error:
            raise BrokenPipeError(errno.EPIPE, "what came before is not read") from error

    def sendall(self, data: Any, flags: int = 0) -> None:  # noqa: ANN401, ARG002 - the base class's
        """Send or keep everything; raises BrokenPipeError for a client that takes it too slowly, or has gone."""
        self._wait(STREAM_BYTES)
        self.unsent += data
        self.send_on()
        self._wait(self._most_unsent)

    def send_on(self) -> int:
        """Send what the client takes at once of what is unsent; return how many bytes those were."""
        try:
            sent = super().send(self.unsent, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        del self.unsent[:sent]
        return sent

    def _wait(self, most: int) -> None:
        """Wait until no more than so many bytes are unsent."""
        while len(self.unsent) > most:
            begun = monotonic()
            # Not select(), which takes no descriptor above 1,023.
            looking = poll()
            looking.register(self, POLLOUT)
            if self.patience.left_s <= 0 or not looking.poll(self.patience.left_s * 1000):
                log.info(NOT_READ)
                self.unsent.clear()
                raise BrokenPipeError(errno.EPIPE, "its reply is not read")
            self.patience.waited(monotonic() - begun, self.send_on())


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
        self.reader = sock
        # There is data whenever a thread is asked to read.
        self.data_ready = True
        self.arriving: Arriving | None = None
        self.patience = Patience(0)
        self.source: Source | None = None
        # When it last sent or took something, and when an idle one is closed; by the monotonic clock.
        self.heard_at = 0.0
        self.closes_at = 0.0
        self.behind = b""
        # Its share in what the worker counts.
        self.counted_bytes = 0
        # Whether the connection ends with its request, as what may still come of that is nobody's to read.
        self.is_last = False
        self.left_to_drain = 0

    def init(self) -> None:
        """Let gunicorn read the request that is there; it calls this for each one, in the thread."""
        self.initialized = True
        self.reader.patience = Patience(SEND_WITHIN_S)
        # One parser a request: nothing of one is read as another's.
        self.parser = Parser(self.cfg, self.source, self.client, is_last=self.is_last)

    @property
    def held_bytes(self) -> int:
        """Return how much is kept of its request, of what came behind that, and of its reply."""
        request = 0 if self.arriving is None else self.arriving.size
        return request + len(self.behind) + len(self.reader.unsent)

    def forget_request(self) -> None:
        """Give back what the request took."""
        if self.arriving is not None:
            self.arriving.close()
        self.arriving = self.source = None
