"""Wait for an effect, with a deadline."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

Value = TypeVar("Value")

WITHIN_S = 180.0


def wait_until(
    condition: Callable[[], Value],
    what: str = "the condition holds",
    *,
    within_s: float = WITHIN_S,
    every_s: float = 0.05,
) -> Value:
    """Return the condition's first true value; fail if it has none within `within_s`."""
    deadline = monotonic() + within_s
    while not (value := condition()):
        assert monotonic() < deadline, f"not within {within_s:g} s: {what}"
        sleep(every_s)
    return value
