"""Keeps threads of a process free of long requests, so that the short ones stay quick."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from common.errors import Overloaded

RETRY_AFTER_S = 1


class Gate:
    """Lets `places` requests pass at a time, and as many more wait for `patience_s` seconds; the rest go at once."""

    def __init__(self, places: int, *, patience_s: float) -> None:
        self._present = BoundedSemaphore(2 * places if patience_s else places)
        self._places = BoundedSemaphore(places)
        self._patience_s = patience_s

    @contextmanager
    def passage(self) -> Iterator[None]:
        """Take a place inside the `with`; raises Overloaded when none gets free."""
        with _held(self._present, 0), _held(self._places, self._patience_s):
            yield


@contextmanager
def _held(semaphore: BoundedSemaphore, patience_s: float) -> Iterator[None]:
    if not semaphore.acquire(timeout=patience_s):
        raise Overloaded("too many long requests at once", retry_after=RETRY_AFTER_S)
    try:
        yield
    finally:
        semaphore.release()
