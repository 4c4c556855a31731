"""Concurrency limits: long requests leave threads of a process free for short ones, and for other clients."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from common.errors import BUSY_RETRY_AFTER_S, Overloaded


class ConcurrencyLimit:
    """Runs up to `limit` requests at once, up to `per_client` of one client, and rejects all others."""

    def __init__(self, limit: int, *, per_client: int | None = None) -> None:
        self._limit = limit
        self._per_client = limit if per_client is None else per_client
        self._lock = Lock()
        self._running: Counter[str] = Counter()

    @contextmanager
    def acquire(self, client: str = "") -> Iterator[None]:
        """Hold a slot inside the `with`; raises Overloaded when none is free."""
        with self._lock:
            if self._running.total() >= self._limit or self._running[client] >= self._per_client:
                raise Overloaded("too many long requests at once", retry_after=BUSY_RETRY_AFTER_S)
            self._running[client] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[client] -= 1
                if not self._running[client]:
                    del self._running[client]
