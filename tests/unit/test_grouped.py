"""Grouped calls: values that arrive during a call share the next one."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.errors import QueueUnavailable
from common.queue.grouped import Grouped
from support.waiting import wait_until

MOST = 4


class Calls:
    """Records the values of each call, which waits for `go`; the ones with a value in `fails` raise."""

    def __init__(self) -> None:
        self.values: list[list[int]] = []
        self.fails: set[int] = set()
        self.go = threading.Event()

    def __call__(self, values: Sequence[int]) -> None:
        self.values.append(list(values))
        assert self.go.wait(60)
        if self.fails.intersection(values):
            raise QueueUnavailable("away")


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def callers(calls: Calls) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool
        calls.go.set()


def waiting(grouped: Grouped[int]) -> int:
    group = grouped._next
    return len(group.values) if group else 0


def test_values_that_arrive_during_a_call_share_the_next(calls: Calls, callers: ThreadPoolExecutor) -> None:
    grouped = Grouped(calls, most=MOST)
    first = callers.submit(grouped, [0])
    wait_until(lambda: calls.values, "the first call has begun")

    others = [callers.submit(grouped, [number]) for number in range(1, MOST)]
    wait_until(lambda: waiting(grouped) == MOST - 1, "the others wait")
    calls.go.set()
    for each in (first, *others):
        each.result(60)

    assert [sorted(values) for values in calls.values] == [[0], [1, 2, 3]]


def test_caller_returns_after_the_call_with_its_values(calls: Calls, callers: ThreadPoolExecutor) -> None:
    grouped = Grouped(calls, most=MOST)
    first = callers.submit(grouped, [0])
    wait_until(lambda: calls.values, "the first call has begun")

    other = callers.submit(grouped, [1])
    wait_until(lambda: waiting(grouped) == 1, "the other waits")

    assert not first.done()
    assert not other.done()


def test_full_group_takes_no_more_values(calls: Calls, callers: ThreadPoolExecutor) -> None:
    grouped = Grouped(calls, most=MOST)
    running = [callers.submit(grouped, [0])]
    wait_until(lambda: calls.values, "the first call has begun")

    running += [callers.submit(grouped, [number]) for number in range(1, 20)]
    calls.go.set()
    for each in running:
        each.result(60)

    assert sorted(value for values in calls.values for value in values) == list(range(20))
    assert max(map(len, calls.values)) <= MOST


def test_failed_call_raises_to_its_callers_only(calls: Calls, callers: ThreadPoolExecutor) -> None:
    grouped = Grouped(calls, most=MOST)
    calls.fails = {1}
    first = callers.submit(grouped, [0])
    wait_until(lambda: calls.values, "the first call has begun")
    others = [callers.submit(grouped, [number]) for number in (1, 2)]
    wait_until(lambda: waiting(grouped) == 2, "the others wait")

    calls.go.set()
    errors = [each.exception(60) for each in (first, *others)]

    assert errors[0] is None
    assert all(isinstance(error, QueueUnavailable) for error in errors[1:])
