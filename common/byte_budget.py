"""Bytes in flight: a limit for the images that a process has in memory at once."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from common.errors import BUSY_RETRY_AFTER_S, Overloaded


class ByteBudget:
    """At most `total` bytes for all reservations together; a reservation waits up to `wait_s` for its bytes.

    Reservations that wait are served in order, so that small ones do not delay a large one for ever. The reservations
    of one client, where they name it, hold at most half of the bytes, or one image.
    """

    def __init__(self, total: int, *, wait_s: float) -> None:
        self._total = total
        self._free = total
        self._wait_s = wait_s
        self._changed = Condition()
        self._waiting: deque[object] = deque()
        self._shares: Counter[str] = Counter()

    @property
    def free_bytes(self) -> int:
        """The bytes that are not reserved."""
        return self._free

    @property
    def waiting_reservations(self) -> int:
        """The number of reservations that wait for bytes."""
        return len(self._waiting)

    @contextmanager
    def reservation(self, client: str | None = None) -> Iterator["Reservation"]:
        """Provide a reservation of 0 bytes inside the `with`, and release its bytes at the end.

        `client` is the client whose share it counts for; None: it counts for no share.
        """
        reservation = Reservation(self, client)
        try:
            yield reservation
        finally:
            reservation.resize(0)

    def acquire(self, size: int, within_s: float | None = None, *, client: str | None = None) -> int:
        """Take `size` bytes, or all if there are fewer, and return their number.

        Raises Overloaded if they do not become free in time, and at once if they exceed the client's share.
        """
        size = min(size, self._total)
        wait_s = self._wait_s if within_s is None else min(within_s, self._wait_s)
        with self._changed, self._sharing(client, size):
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

    def release(self, size: int, *, client: str | None = None) -> None:
        """Give the bytes back."""
        if size:
            with self._changed:
                self._free += size
                self._count(client, -size)
                self._changed.notify_all()

    @contextmanager
    def _sharing(self, client: str | None, size: int) -> Iterator[None]:
        """Count the bytes that a client takes or waits for inside the `with`; keep the count unless it fails."""
        if client is not None and self._shares[client] and self._shares[client] + size > self._total // 2:
            raise Overloaded("too many bytes of this client's images are in memory", retry_after=BUSY_RETRY_AFTER_S)
        self._count(client, size)
        try:
            yield
        except Overloaded:
            self._count(client, -size)
            raise

    def _count(self, client: str | None, size: int) -> None:
        if client is not None:
            self._shares[client] += size
            if not self._shares[client]:
                del self._shares[client]


class Reservation:
    """The bytes that one image may take; for one thread."""

    def __init__(self, budget: ByteBudget, client: str | None = None) -> None:
        self._budget = budget
        self._client = client
        self._size = 0

    def resize(self, size: int, *, within_s: float | None = None) -> None:
        """Hold `size` bytes, for which to wait at most `within_s`. Raises Overloaded; then it holds none.

        For more bytes it first gives all back: two that wait for each other's bytes would wait for ever.
        """
        kept = size if size <= self._size else 0
        self._budget.release(self._size - kept, client=self._client)
        self._size = kept
        if size > kept:
            self._size = self._budget.acquire(size, within_s, client=self._client)
