"""The total time of downloads: one thread shuts the connections of those whose time is over."""

import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from common.errors import FetchError


class Download:
    """One fetch's time, and the connection to shut when it is over; `dial` opens the one that it needs now."""

    dial: Callable[[], socket.socket]

    def __init__(self, span_s: float) -> None:
        self._ends = time.monotonic() + span_s
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None

    @property
    def left_s(self) -> float:
        """The seconds that are left, 0 when the time is over."""
        return max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        """Raise TimeoutError when the time is over."""
        if not self.left_s:
            raise TimeoutError

    def guard(self, connected: socket.socket) -> None:
        """Have this connection shut when the time is over, or until `let_go`."""
        with self._lock:
            self.check()
            if self._handle is None:
                # A descriptor of its own: urllib3 may close, wrap or pass on the other one at any moment, and then the
                # watchdog would shut nothing, or a stranger's connection.
                self._handle = socket.fromfd(connected.fileno(), connected.family, connected.type)

    def let_go(self) -> None:
        """Leave the connection to others: this request of it is answered."""
        with self._lock:
            if self._handle is not None:
                self._handle.close()
            self._handle = None

    def end(self) -> None:
        """Shut the connection, whoever waits for it."""
        with self._lock, suppress(OSError):
            if self._handle is not None:
                self._handle.shutdown(socket.SHUT_RDWR)


# What this thread fetches now: a connection learns from it where to go, and who watches.
DOWNLOAD: ContextVar[Download] = ContextVar("match_fetch_download")


class Watchdog:
    """Ends every download whose time is over.

    A socket's own time-out starts anew with each byte. All downloads have the same span, so the first begun is the
    first to end: one thread and an ordered dict do, and the thread wakes about once a span.
    """

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._running: OrderedDict[Download, None] = OrderedDict()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def watched(self) -> Iterator[Download]:
        """Watch the download that goes on inside the `with`; raises FetchError once closed."""
        with self._changed:
            if self._closed:
                raise FetchError("the fetcher is closed", code="closed")
            if self._thread is None:
                # Not before: a fetcher made before a fork would lose its thread.
                thread = threading.Thread(target=self._watch, name="match-fetch-watchdog", daemon=True)
                thread.start()
                self._thread = thread
            if not self._running:
                self._changed.notify()
            download = Download(self._span_s)
            self._running[download] = None
        token = DOWNLOAD.set(download)
        try:
            yield download
        finally:
            DOWNLOAD.reset(token)
            with self._changed:
                self._running.pop(download, None)

    def close(self) -> None:
        """Begin no more; what runs may end."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while self._running or not self._closed:
                first = next(iter(self._running), None)
                if first is not None and not first.left_s:
                    del self._running[first]
                    first.end()
                else:
                    self._changed.wait(first.left_s if first else None)
