"""Concurrency limits: long requests leave threads of a process free for short ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from common.errors import Overloaded

RETRY_AFTER_S = 1


class ConcurrencyLimit:
    """Runs up to `limit` requests at once; as many more wait up to `wait_s` seconds, all others are rejected."""

    def __init__(self, limit: int, *, wait_s: float) -> None:
        self._admitted = BoundedSemaphore(2 * limit if wait_s else limit)
        self._running = BoundedSemaphore(limit)
        self._wait_s = wait_s

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Hold a slot inside the `with`; raises Overloaded when none is free in time."""
        with _hold(self._admitted, 0), _hold(self._running, self._wait_s):
            yield


@contextmanager
def _hold(semaphore: BoundedSemaphore, wait_s: float) -> Iterator[None]:
    if not semaphore.acquire(timeout=wait_s):
        raise Overloaded("too many long requests at once", retry_after=RETRY_AFTER_S)
    try:
        yield
    finally:
        semaphore.release()
