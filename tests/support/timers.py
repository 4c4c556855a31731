"""Timers that end with their test."""

from collections.abc import Callable
from threading import Timer


class Timers:
    """Starts timers. A timer that outlived its test would write to the Redis of the next one."""

    def __init__(self) -> None:
        self._started: list[Timer] = []

    def start(self, seconds: float, call: Callable[[], None]) -> None:
        """Make the call in a thread after this time."""
        timer = Timer(seconds, call)
        timer.start()
        self._started.append(timer)

    def close(self) -> None:
        """Cancel the timers, and wait for those that have elapsed and for the ones that they start."""
        while self._started:
            timer = self._started.pop()
            timer.cancel()
            timer.join()
