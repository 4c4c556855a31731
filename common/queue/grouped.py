"""One call for the values of many concurrent callers."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _Group(Generic[V]):
    values: list[V] = field(default_factory=list)
    call: Future[None] = field(default_factory=Future)


class Grouped(Generic[V]):
    """A function of many values, called once for all values that arrive during its call before.

    A caller returns, or raises, like the call that had its values. No caller waits for others to arrive. `most` is the
    number of values from which on a group takes no more callers.
    """

    def __init__(self, act: Callable[[Sequence[V]], None], *, most: int) -> None:
        self._act = act
        self._most = most
        self._lock = threading.Lock()
        self._acting = threading.Lock()
        self._next: _Group[V] | None = None

    def __call__(self, values: Sequence[V]) -> None:
        """Have these values in a call, with those of other callers."""
        with self._lock:
            group = self._next
            leads = group is None
            if group is None:
                group = self._next = _Group()
            group.values.extend(values)
            if len(group.values) >= self._most:
                self._next = None
        if leads:
            with self._acting:
                # A later caller needs the next call.
                with self._lock:
                    if self._next is group:
                        self._next = None
                self._lead(group)
        group.call.result()

    def _lead(self, group: _Group[V]) -> None:
        try:
            self._act(group.values)
        except BaseException as error:  # noqa: BLE001 - raised again in every caller, including this one
            group.call.set_exception(error)
        else:
            group.call.set_result(None)
