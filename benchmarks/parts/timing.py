"""The duration of calls, single or two alternately."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def timed(call: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def alternately(index: int, one: Callable[[], T], other: Callable[[], T]) -> tuple[tuple[float, T], tuple[float, T]]:
    """Time both calls; their order changes with each index."""
    if index % 2:
        second, first = timed(other), timed(one)
        return first, second
    return timed(one), timed(other)
