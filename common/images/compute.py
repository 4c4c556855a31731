"""The compute slot: one image at a time in a process, and the end of a process stuck in a decoder."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class ComputeSlot:
    """At most one decode and signature at a time in this process: more would only add up their memory.

    `timeout_s` is the time limit of `alarm`.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = Lock()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Acquire the slot, and release it at the end of the `with`."""
        with self._lock:
            yield

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """End this process if the `with`, inside that of `hold`, exceeds the time limit.

        A decoder that hangs in C code receives no Python exception. Therefore the kernel's alarm ends the whole process
        (SIGALRM's default action), and its parent starts another. No other code in the process may use ITIMER_REAL.
        """
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
