"""Bytes in flight: a limit for the images that a process has in memory at once."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from common.errors import BUSY_RETRY_AFTER_S, Overloaded


class ByteBudget:
    """At most `total` bytes for all reservations together; a reservation waits up to `wait_s` for its bytes.

    Reservations that wait are served in order, so that small ones do not delay a large one for ever.
    """

    def __init__(self, total: int, *, wait_s: float) -> None:
        self._total = total
        self._free = total
        self._wait_s = wait_s
        self._changed = Condition()
        self._waiting: deque[object] = deque()

    @property
    def free_bytes(self) -> int:
        """The bytes that are not reserved."""
        return self._free

    @property
    def waiting_reservations(self) -> int:
        """The number of reservations that wait for bytes."""
        return len(self._waiting)

    @contextmanager
    def reservation(self) -> Iterator["Reservation"]:
        """Provide a reservation of 0 bytes inside the `with`, and release its bytes at the end."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            reservation.resize(0)

    def acquire(self, size: int, within_s: float | None = None) -> int:
        """Take `size` bytes, or all if there are fewer, and return their number.

        Raises Overloaded if they do not become free in time.
        """
        size = min(size, self._total)
        wait_s = self._wait_s if within_s is None else min(within_s, self._wait_s)
        with self._changed:
            turn = object()
            self._waiting.append(turn)
            try:
                if not self._changed.wait_for(lambda: self._waiting[0] is turn and self._free >= size, wait_s):
                    raise Overloaded("too many bytes of images are in memory", retry_after=BUSY_RETRY_AFTER_S)
                self._free -= size
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        return size

    def release(self, size: int) -> None:
        """Give the bytes back."""
        if size:
            with self._changed:
                self._free += size
                self._changed.notify_all()


class Reservation:
    """The bytes that one image may take; for one thread."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._size = 0

    def resize(self, size: int, *, within_s: float | None = None) -> None:
        """Hold `size` bytes, for which to wait at most `within_s`. Raises Overloaded; then it holds none.

        For more bytes it first gives all back: two that wait for each other's bytes would wait for ever.
        """
        kept = size if size <= self._size else 0
        self._budget.release(self._size - kept)
        self._size = kept
        if size > kept:
            self._size = self._budget.acquire(size, within_s)
