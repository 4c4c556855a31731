"""The deadlines of downloads: one thread shuts down the connections of overdue ones."""

import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from common.errors import FetchError


class Download:
    """One download: its deadline, and the connection to shut down then; `connect` opens a new connection.

    `is_reused`: the last request was sent over an idle connection, which the server may have closed.
    """

    connect: Callable[[], socket.socket]
    is_reused = False

    def __init__(self, limit_s: float) -> None:
        self._ends = time.monotonic() + limit_s
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None

    @property
    def left_s(self) -> float:
        """The seconds until the deadline, 0 after it."""
        return max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        """Raise TimeoutError after the deadline."""
        if not self.left_s:
            raise TimeoutError

    def guard(self, connected: socket.socket) -> None:
        """Shut this connection down at the deadline, unless `release` is called first."""
        with self._lock:
            self.check()
            if self._handle is None:
                # A duplicate descriptor: urllib3 may close, wrap or reuse its own at any moment. The watchdog would
                # then shut down no connection, or that of another download.
                self._handle = socket.fromfd(connected.fileno(), connected.family, connected.type)

    def release(self) -> None:
        """Stop guarding the connection: its response is complete, and another request may reuse it."""
        with self._lock:
            if self._handle is not None:
                self._handle.close()
            self._handle = None

    def end(self) -> None:
        """Shut the connection down, which wakes the thread that waits for it."""
        with self._lock, suppress(OSError):
            if self._handle is not None:
                self._handle.shutdown(socket.SHUT_RDWR)


# The download of this thread: the connection classes, which urllib3 creates, cannot receive it as an argument.
DOWNLOAD: ContextVar[Download] = ContextVar("match_fetch_download")


class Watchdog:
    """Ends every download at its deadline.

    A socket's own time-out restarts with each byte. All downloads have the same time limit, so the oldest is due first:
    one thread and an ordered dict suffice, and the thread wakes about once per limit.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._running: OrderedDict[Download, None] = OrderedDict()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def watched(self) -> Iterator[Download]:
        """Limit the time of the download inside the `with`. Raises FetchError once closed."""
        with self._changed:
            if self._closed:
                raise FetchError("the fetcher is closed", code="closed")
            if self._thread is None:
                # Started late: a fork would lose a thread started before it.
                thread = threading.Thread(target=self._watch, name="match-fetch-watchdog", daemon=True)
                thread.start()
                self._thread = thread
            if not self._running:
                self._changed.notify()
            download = Download(self._limit_s)
            self._running[download] = None
        token = DOWNLOAD.set(download)
        try:
            yield download
        finally:
            DOWNLOAD.reset(token)
            with self._changed:
                self._running.pop(download, None)

    def close(self) -> None:
        """Start no more downloads; running ones continue."""
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
