"""Lists in parts: a request has a limit of items."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Return the items in their order, in parts of `size`; the last one may be smaller.

    >>> parts("abcde", 2)
    ['ab', 'cd', 'e']
    """
    return [items[start : start + size] for start in range(0, len(items), size)]
