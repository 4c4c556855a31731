"""Waits for effects, with a deadline."""

from collections.abc import Callable
from time import monotonic, sleep

from common.store.base import Store

WITHIN_S = 60.0


def wait_until(done: Callable[[], bool], what: str, *, within_s: float = WITHIN_S) -> float:
    """Return after how many seconds `done` said yes; fail when it does not in time."""
    started = monotonic()
    while not done():
        assert monotonic() - started < within_s, f"not in time: {what}"
        sleep(0.05)
    return monotonic() - started


def wait_for_stored(store: Store, count: int) -> None:
    """Return when at least so many pictures are stored."""
    wait_until(lambda: store.count() >= count, f"{count} are stored")
