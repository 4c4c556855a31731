"""The deadlines of downloads: one thread shuts down the connections of overdue ones."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

from common.errors import FetchError


@dataclass(frozen=True, slots=True)
class MinimumRate:
    """The mean rate that a body must arrive at, after its first `grace_s` seconds."""

    bytes_per_s: float
    grace_s: float


class Download:
    """One download: its deadline, and the connection to shut down then; `connect` opens a new connection.

    With a `minimum_rate`, the deadline is also the time at which the body falls below it if no more bytes arrive.
    `is_reused`: the last request was sent over an idle connection, which the server may have closed.
    """

    connect: Callable[[], socket.socket]
    is_reused = False

    def __init__(
        self,
        limit_s: float,
        minimum_rate: MinimumRate | None = None,
        *,
        on_earlier: Callable[[], None] = lambda: None,
    ) -> None:
        self._limit_ends = time.monotonic() + limit_s
        self._ends = self._limit_ends
        self._minimum_rate = minimum_rate
        self._body_began = 0.0
        self._on_earlier = on_earlier
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None

    @property
    def left_s(self) -> float:
        """The seconds until the deadline, 0 after it."""
        return max(0.0, self._ends - time.monotonic())

    @property
    def is_slow(self) -> bool:
        """Whether the deadline is that of the minimum rate."""
        return self._ends < self._limit_ends

    def received(self, size: int) -> None:
        """Move the deadline of the minimum rate: the body has `size` bytes so far, 0 at its start."""
        if self._minimum_rate is None:
            return
        if not size:
            self._body_began = time.monotonic()
        due = self._body_began + self._minimum_rate.grace_s + size / self._minimum_rate.bytes_per_s
        # Past the deadline the connection is shut down: more bytes from its buffer do not revive it.
        if self.left_s:
            self._ends = min(self._limit_ends, due)
        if not size:
            self._on_earlier()

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
        if self.left_s:
            self._ends = self._limit_ends
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

    A socket's own time-out restarts with each byte. One thread suffices: it sleeps until the next download is due.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._running: set[Download] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def watched(self, minimum_rate: MinimumRate | None = None) -> Iterator[Download]:
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
            download = Download(self._limit_s, minimum_rate, on_earlier=self._notify)
            self._running.add(download)
        token = DOWNLOAD.set(download)
        try:
            yield download
        finally:
            DOWNLOAD.reset(token)
            with self._changed:
                self._running.discard(download)

    def close(self) -> None:
        """Start no more downloads; running ones continue."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while self._running or not self._closed:
                first = min(self._running, key=lambda download: download.left_s, default=None)
                if first is not None and not first.left_s:
                    self._running.discard(first)
                    first.end()
                else:
                    self._changed.wait(first.left_s if first else None)
