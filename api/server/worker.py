"""gunicorn's threaded worker, with requests read by its event loop: a slow client costs no thread.

gunicorn gives a connection a thread from its first byte on, and reads heads and bodies there without a time limit. Here
the loop reads, of every client what has come, and a thread begins when the whole request is there. A body that is a
stream of lines is the exception: its thread begins with the head, and api/server/connection.py bounds how long it
waits. The loop sends, too: what a client does not take of its reply at once.

gunicorn's threads have a queue without an end, too. Here a request that none of them has taken within QUEUED_S is
refused: otherwise its client would give up before it is answered, and the work for it be done all the same.
"""

import errno
import logging
import selectors
import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from tempfile import SpooledTemporaryFile
from time import monotonic, sleep
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from api.server.arrival import Arriving, Patience, Stage
from api.server.connection import NOT_READ, Connection, Reader, Source
from api.server.refusals import BUSY, CHUNKS, FAULT, HEADERS, NO_ROOM, TOO_SLOW, Refusal, refusal_of, reply

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
# Larger requests are kept on disk while they come in.
MEMORY_BYTES = 512 * 1024
# A client that is told why it was cut off has so long to read it, and as much more to send meanwhile.
LINGER_S = 2.0
LINGER_BYTES = 1024 * 1024
LOOK_EVERY_S = 0.5
# Half of what impatient clients and load balancers wait.
QUEUED_S = 2.0
TELL_EVERY_S = 10.0
# A worker that was told to stop closes an idle connection after so long: its client may be sending already.
IDLE_WHEN_STOPPING_S = 2.0
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
REFUSED = {Stage.TOO_LARGE_HEAD: HEADERS, Stage.TOO_MANY_CHUNKS: CHUNKS}
NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
NO_ROOM_S = 0.1
PASSING = {errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a worker takes: the time a client has, the largest body, and the bytes of all clients together."""

    patience_s: float
    body_bytes: int
    held_bytes: int


class Worker(ThreadWorker):
    """gunicorn's own, save who reads and who ends a connection: always the loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
        super().__init__(*args, **kwargs)
        # Those that the loop listens to; the others are with threads.
        self._open: set[Connection] = set()
        self._held_bytes = 0
        self._look_at = 0.0
        # Those that wait for a thread, the first ones first, and since when; others among them have one by now.
        self._queued: deque[tuple[float, TConn, Future[bool]]] = deque()
        self._refused = 0
        self._tell_at = 0.0

    def run(self) -> None:
        """Serve; the app, which says what it takes, was loaded in this process."""
        self._bounds: Bounds = self.app.bounds  # type: ignore[attr-defined]  # api/__main__.py's has it
        super().run()

    def accept(self, listener: socket.socket) -> None:
        """Take a connection; where there are too many, the one that was silent longest makes room."""
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in NO_DESCRIPTOR and self._open:
                self._drop(self._most_idle())
            elif error.errno not in PASSING:
                # Whoever waits in the kernel is taken up when there is room; until then the loop must not spin.
                log.warning("no connection can be taken: %s", error)
                sleep(NO_ROOM_S)
            return
        self.nr_conns += 1
        # So no reply alone is too much.
        reader = Reader(sock, most_unsent=self._bounds.held_bytes // 2)
        conn = Connection(self.cfg, reader, address, listener.getsockname())
        self._wait_for_request(conn, idle_s=self._bounds.patience_s)
        if self.nr_conns >= self.worker_connections:
            self._drop(self._most_idle())

    def finish_request(self, conn: TConn, fs: Future[bool]) -> None:
        """Go on with the connection when a thread has answered a request on it."""
        assert isinstance(conn, Connection)  # noqa: S101 - gunicorn's interface names its own
        conn.is_last = fs.cancelled() or fs.exception() is not None or not fs.result()
        conn.forget_request()
        self._count(conn)
        # A thread that broke in the middle of a reply has closed the socket.
        if conn.sock.fileno() < 0:
            self._close(conn)
        elif conn.reader.unsent:
            conn.heard_at = monotonic()
            self._listen(conn, self._send, selectors.EVENT_WRITE)
            self._make_room_for(conn)
        else:
            self._go_on(conn)

    def enqueue_req(self, conn: TConn) -> None:
        """Queue a request for the threads."""
        future = self.tpool.submit(self.handle, conn)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))
        self._queued.append((monotonic(), conn, future))

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:  # noqa: ANN401, ARG002 - gunicorn's interface
        """Answer what is no request in the envelope; nothing of what it holds is logged."""
        refusal = refusal_of(exc)
        if refusal is FAULT:
            log.error("a request broke outside the app", exc_info=exc)
        else:
            log.info("no request: %s", type(exc).__name__)
        with suppress(OSError):
            client.sendall(reply(refusal))

    def murder_pending(self) -> None:
        """Give up those who took too long; gunicorn calls this at least once a second."""
        now = monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        self._refuse_queued(now)
        for conn in list(self._open):
            silent_s = now - conn.heard_at
            if conn.reader.unsent:
                if silent_s > conn.reader.patience.left_s:
                    log.info(NOT_READ)
                    self._drop(conn)
            elif conn.arriving is not None and conn.arriving.has_begun:
                if silent_s > conn.patience.left_s:
                    self._refuse(conn, TOO_SLOW)
            elif now > conn.closes_at:
                self._drop(conn)

    def murder_keepalived(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's interface
        """Close everything that is left when the worker ends."""
        for conn in list(self._open) if force else ():
            self._drop(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """Let idle connections end soon, when the worker is told to stop; gunicorn calls this."""
        for conn in self._open:
            conn.closes_at = min(conn.closes_at, deadline)

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:  # noqa: FBT001 - gunicorn's interface
        """Keep the connection if the whole request was there: what the app left of it unread goes with its file."""
        assert isinstance(conn, Connection)  # noqa: S101 - as above
        return keepalive and not conn.is_last

    def _send(self, conn: Connection, _sock: object) -> None:
        """Send what the client takes of a reply that its thread has left to the loop."""
        # Something else that came at the same moment may have ended it.
        if conn not in self._open:
            return
        now = monotonic()
        try:
            sent = conn.reader.send_on()
        except OSError:
            self._drop(conn)
            return
        conn.reader.patience.waited(now - conn.heard_at, sent)
        conn.heard_at = now
        self._count(conn)
        if not conn.reader.unsent:
            self._forget(conn)
            self._go_on(conn)

    def _go_on(self, conn: Connection) -> None:
        """Take the next request, or end the connection, when a reply is sent."""
        if conn.is_last:
            self._linger(conn)
        else:
            self._wait_for_request(conn, idle_s=self.cfg.keepalive if self.alive else IDLE_WHEN_STOPPING_S)

    def _wait_for_request(self, conn: Connection, *, idle_s: float) -> None:
        file = SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - closed with its request
        conn.arriving = Arriving(file, most_bytes=self._bounds.body_bytes)
        conn.patience = Patience(self._bounds.patience_s)
        conn.heard_at = monotonic()
        conn.closes_at = conn.heard_at + idle_s
        self._listen(conn, self._read)
        if conn.behind:
            data, conn.behind = conn.behind, b""
            self._take(conn, conn.arriving, data)

    def _read(self, conn: Connection, _sock: object) -> None:
        if conn not in self._open:
            return
        arriving = conn.arriving
        try:
            data = conn.sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(conn)
            return
        if arriving is not None and data:
            self._take(conn, arriving, data)
        elif arriving is not None and arriving.has_begun:
            # The client has ended its side: what is missing never comes, and that is for the app to tell.
            self._hand_over(conn, arriving)
        else:
            self._drop(conn)

    def _take(self, conn: Connection, arriving: Arriving, data: bytes) -> None:
        now = monotonic()
        if arriving.has_begun:
            conn.patience.waited(now - conn.heard_at, len(data))
        conn.heard_at = now
        try:
            conn.behind = arriving.take(data)
            has_room = True
        except OSError:
            log.exception("there is no room for a request that comes in")
            has_room = False
        self._count(conn)
        # A request that is there, and nothing behind it, soon gives back what it holds.
        stays = arriving.stage is Stage.COMING or conn.behind
        if not has_room:
            self._refuse(conn, NO_ROOM)
        elif arriving.stage in REFUSED:
            self._refuse(conn, REFUSED[arriving.stage])
        elif stays and not self._make_room_for(conn):
            pass  # It was refused itself.
        elif arriving.stage is not Stage.COMING:
            self._hand_over(conn, arriving)
        elif arriving.asks:
            arriving.asks = False
            with suppress(OSError):
                conn.sock.send(GO_ON)

    def _hand_over(self, conn: Connection, arriving: Arriving) -> None:
        """Let a thread begin with the request."""
        self._forget(conn)
        streams = arriving.stage is Stage.STREAMING
        conn.source = Source(conn.sock, arriving.opened(), Patience(self._bounds.patience_s) if streams else None)
        conn.is_last = arriving.stage is not Stage.THERE or not arriving.end_is_known
        self.enqueue_req(conn)

    def _refuse(self, conn: Connection, refusal: Refusal) -> None:
        """Tell a client why its request is not taken, and end the connection."""
        with suppress(OSError):
            conn.sock.send(reply(refusal))
        log.info("a request is refused: %s", refusal.code)
        self._forget(conn)
        self._linger(conn)

    def _refuse_queued(self, now: float) -> None:
        """Refuse those that have waited too long for a thread."""
        while self._queued:
            since, conn, future = self._queued[0]
            waits = not (future.running() or future.done())
            if waits and now - since < QUEUED_S:
                break
            self._queued.popleft()
            # Cancelled, it comes back to the loop as one that has ended.
            if waits and future.cancel():
                self._refused += 1
                with suppress(OSError):
                    conn.sock.send(reply(BUSY))
        if self._refused and now >= self._tell_at:
            log.warning("%d requests were refused: no thread was free for them", self._refused)
            self._refused, self._tell_at = 0, now + TELL_EVERY_S

    def _most_idle(self) -> Connection:
        """Return the connection that has been silent longest."""
        return min(self._open, key=lambda one: one.heard_at)

    def _linger(self, conn: Connection) -> None:
        """End our side, and take what comes until the client has ended its own: else it might lose our last bytes."""
        conn.forget_request()
        conn.behind = b""
        self._count(conn)
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        conn.heard_at = monotonic()
        conn.closes_at = conn.heard_at + LINGER_S
        conn.left_to_drain = LINGER_BYTES
        self._listen(conn, self._drain)

    def _drain(self, conn: Connection, _sock: object) -> None:
        if conn not in self._open:
            return
        try:
            data = conn.sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        conn.left_to_drain -= len(data)
        if not data or conn.left_to_drain < 0:
            self._drop(conn)

    def _listen(
        self, conn: Connection, when_ready: Callable[[Connection, Any], None], ready_to: int = selectors.EVENT_READ
    ) -> None:
        conn.sock.settimeout(0)
        self._open.add(conn)
        self.poller.register(conn.sock, ready_to, partial(when_ready, conn))

    def _forget(self, conn: Connection) -> None:
        """Let the loop listen to the connection no longer."""
        self._open.remove(conn)
        self.poller.unregister(conn.sock)

    def _count(self, conn: Connection) -> None:
        """Count what the connection holds now, in place of what it held."""
        held = conn.held_bytes
        self._held_bytes += held - conn.counted_bytes
        conn.counted_bytes = held

    def _make_room_for(self, conn: Connection) -> bool:
        """Give up whoever holds most, where all of them hold too much; say whether this one may stay."""
        if self._held_bytes <= self._bounds.held_bytes:
            return True
        # Many small requests are worth more than a large one.
        most = max(self._open, key=lambda one: one.counted_bytes)
        if most.reader.unsent:
            log.info("a reply that is not read is given up: too much is kept at once")
            self._drop(most)
        else:
            self._refuse(most, NO_ROOM)
        return most is not conn

    def _drop(self, conn: Connection) -> None:
        self._forget(conn)
        self._close(conn)

    def _close(self, conn: Connection) -> None:
        self._held_bytes -= conn.counted_bytes
        self.nr_conns -= 1
        conn.forget_request()
        conn.close()
