"""One picture at a time: the compute slot of a process, and the end of a process stuck in a decoder."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class ComputeSlot:
    """At most one decode and signature at a time in this process.

    More at once would only share the processor and add up their memory. A decoder that hangs inside C code hears of no
    Python exception, so the kernel's alarm ends the whole process (SIGALRM's default action) after `timeout_s`; whoever
    started it starts another. Nothing else in this process may use ITIMER_REAL.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = Lock()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the slot, and keep it inside the `with`."""
        with self._lock:
            signal.setitimer(signal.ITIMER_REAL, self._timeout_s)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
