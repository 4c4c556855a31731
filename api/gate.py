"""Keeps half of a process's threads free of long requests, so that the short ones stay quick."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from common.errors import Overloaded

# A burst may queue for a moment; more than that is an overload, to be told at once.
LONGEST_QUEUE_S = 1.0
RETRY_AFTER_S = 1


class Gate:
    """Lets `places` requests wait, download or decode at a time."""

    def __init__(self, places: int) -> None:
        self._places = BoundedSemaphore(places)

    @contextmanager
    def passage(self) -> Iterator[None]:
        """Take a place inside the `with`; raises Overloaded when none gets free."""
        if not self._places.acquire(timeout=LONGEST_QUEUE_S):
            raise Overloaded("too many searches and waits at once", retry_after=RETRY_AFTER_S)
        try:
            yield
        finally:
            self._places.release()
