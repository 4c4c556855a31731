"""Waits for effects, with a deadline."""

from collections.abc import Callable
from time import monotonic, sleep

WITHIN_S = 60.0


def wait_until(done: Callable[[], bool], what: str, *, within_s: float = WITHIN_S) -> float:
    """Return after how many seconds `done` said yes; fail when it does not in time."""
    started = monotonic()
    while not done():
        assert monotonic() - started < within_s, f"not in time: {what}"
        sleep(0.02)
    return monotonic() - started
