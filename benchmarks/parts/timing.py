"""The duration of calls, single or two alternately."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def timed(call: Callable[[], T], clock: Callable[[], float] = time.perf_counter) -> tuple[float, T]:
    started = clock()
    result = call()
    return clock() - started, result


def alternately(index: int, one: Callable[[], T], other: Callable[[], T]) -> tuple[tuple[float, T], tuple[float, T]]:
    """Time both calls; their order changes with each index."""
    if index % 2:
        second, first = timed(other), timed(one)
        return first, second
    return timed(one), timed(other)
