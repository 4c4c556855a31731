"""One picture at a time: the compute slot of a process, and the end of a process stuck in a decoder."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class ComputeSlot:
    """At most one decode and signature at a time in this process: more would only add up their memory.

    `timeout_s` is the longest time for one of them.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = Lock()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the slot, and keep it inside the `with`."""
        with self._lock:
            yield

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """End this process if the `with`, inside that of `hold`, takes longer than the time.

        A decoder that hangs inside C code hears of no Python exception, so it is the kernel's alarm that ends the whole
        process (SIGALRM's default action); whoever started it starts another. Nothing else here may use ITIMER_REAL.
        """
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
