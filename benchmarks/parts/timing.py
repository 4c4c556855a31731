"""How long calls take, one alone or two in turns."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def timed(call: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    answer = call()
    return time.perf_counter() - begun, answer


def in_turns(place: int, one: Callable[[], T], other: Callable[[], T]) -> tuple[tuple[float, T], tuple[float, T]]:
    """Time both; who comes second changes from call to call."""
    if place % 2:
        second, first = timed(other), timed(one)
        return first, second
    return timed(one), timed(other)
