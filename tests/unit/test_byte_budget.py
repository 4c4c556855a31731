"""The budget of bytes in flight: waits in order, deadlines, and nothing lost or held by mistake."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from common.byte_budget import ByteBudget
from common.errors import Overloaded
from support.waiting import wait_until

LONG_S = 30


def test_a_reservation_gives_its_bytes_back() -> None:
    budget = ByteBudget(10, wait_s=0)

    with budget.reservation() as reservation:
        reservation.resize(8)
        reservation.resize(3)
        during = budget.free_bytes

    assert (during, budget.free_bytes) == (7, 10)


def test_bytes_that_stay_taken_are_overload() -> None:
    budget = ByteBudget(10, wait_s=0)

    with budget.reservation() as first, budget.reservation() as second:
        first.resize(6)
        with pytest.raises(Overloaded) as caught:
            second.resize(5)
        second.resize(4)

    assert caught.value.retry_after == 1
    assert budget.free_bytes == 10


def test_a_waiting_reservation_gets_bytes_that_become_free() -> None:
    budget = ByteBudget(10, wait_s=LONG_S)
    is_reserved = Event()

    def reserve() -> None:
        with budget.reservation() as reservation:
            reservation.resize(7)
            is_reserved.set()

    with ThreadPoolExecutor(1) as threads:
        with budget.reservation() as first:
            first.resize(6)
            waiting = threads.submit(reserve)
            was_reserved = is_reserved.wait(0.05)
        waiting.result(LONG_S)

    assert not was_reserved
    assert budget.free_bytes == 10


def test_small_reservations_do_not_overtake_a_large_one() -> None:
    budget = ByteBudget(10, wait_s=LONG_S)
    order: list[int] = []

    def reserve(size: int) -> None:
        with budget.reservation() as reservation:
            reservation.resize(size)
            order.append(size)

    with ThreadPoolExecutor(2) as threads:
        with budget.reservation() as first:
            first.resize(5)
            large = threads.submit(reserve, 10)
            wait_until_waiting(budget, 1)
            small = threads.submit(reserve, 1)
            wait_until_waiting(budget, 2)
        large.result(LONG_S)
        small.result(LONG_S)

    assert order == [10, 1]


def test_growing_reservations_do_not_block_each_other() -> None:
    budget = ByteBudget(10, wait_s=LONG_S)
    started = Event()

    def grow() -> None:
        with budget.reservation() as reservation:
            reservation.resize(4)
            started.set()
            reservation.resize(10)

    with ThreadPoolExecutor(1) as threads, budget.reservation() as reservation:
        reservation.resize(4)
        other = threads.submit(grow)
        assert started.wait(LONG_S)
        reservation.resize(10)
        reservation.resize(0)
        other.result(LONG_S)

    assert budget.free_bytes == 10


def test_an_image_beyond_the_budget_takes_all_of_it() -> None:
    budget = ByteBudget(10, wait_s=0)

    with budget.reservation() as reservation:
        reservation.resize(50)
        during = budget.free_bytes

    assert (during, budget.free_bytes) == (0, 10)


def test_client_holds_at_most_half_of_the_bytes() -> None:
    budget = ByteBudget(10, wait_s=0)

    with budget.reservation("a") as first, budget.reservation("a") as second, budget.reservation("b") as other:
        first.resize(4)
        with pytest.raises(Overloaded):
            second.resize(2)
        second.resize(1)
        other.resize(5)
        during = budget.free_bytes

    assert (during, budget.free_bytes) == (0, 10)


def test_client_may_hold_one_image_of_any_size() -> None:
    budget = ByteBudget(10, wait_s=0)

    for _ in range(2):
        with budget.reservation("a") as reservation:
            reservation.resize(10)

    assert budget.free_bytes == 10


def test_bytes_waited_for_in_vain_are_not_counted() -> None:
    budget = ByteBudget(10, wait_s=0)

    with budget.reservation() as other, budget.reservation("a") as first, budget.reservation("a") as second:
        other.resize(9)
        with pytest.raises(Overloaded):
            first.resize(5)
        other.resize(0)
        second.resize(5)
        during = budget.free_bytes

    assert during == 5


def wait_until_waiting(budget: ByteBudget, count: int) -> None:
    wait_until(lambda: budget.waiting_reservations >= count, f"{count} reservations wait")
