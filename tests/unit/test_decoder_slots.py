"""Slots for decoding: limits for each client, turns and deadlines."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from common.decoding.slots import DecoderSlots
from common.errors import Overloaded
from support.waiting import wait_until


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def waiting(slots: DecoderSlots) -> int:
    return sum(len(queue) for queue in slots._waiting.values())


def slots_of(total: int, *, per_client: int = 1, queue: int = 10, wait_s: float = 60) -> DecoderSlots:
    return DecoderSlots(total, per_client=per_client, queue=queue, wait_s=wait_s)


def test_one_client_leaves_a_slot_for_others() -> None:
    slots = slots_of(2, wait_s=0)

    with slots.acquire("one"), slots.acquire("other"):
        pass
    with slots.acquire("one"), pytest.raises(Overloaded), slots.acquire("one"):
        pass


def test_without_a_limit_per_client_one_has_all() -> None:
    slots = slots_of(2, per_client=2, wait_s=0)

    with slots.acquire(""), slots.acquire(""), pytest.raises(Overloaded), slots.acquire(""):
        pass


def test_a_full_queue_of_one_client_rejects_only_it(threads: ThreadPoolExecutor) -> None:
    slots = slots_of(1, queue=1)
    with ExitStack() as running:
        running.enter_context(slots.acquire("one"))
        futures = [threads.submit(hold, slots, "one", [])]
        wait_until(lambda: waiting(slots) == 1)

        with pytest.raises(Overloaded), slots.acquire("one"):
            pass
        futures.append(threads.submit(hold, slots, "other", []))
        wait_until(lambda: waiting(slots) == 2)

    assert [future.result() for future in futures] == [None, None]


def test_clients_take_turns(threads: ThreadPoolExecutor) -> None:
    slots, order = slots_of(1), list[str]()
    with slots.acquire("busy"):
        futures: list[Future[None]] = []
        for client in ("busy", "busy", "busy", "other", "other"):
            futures.append(threads.submit(hold, slots, client, order))
            wait_until(lambda: waiting(slots) == len(futures))

    for future in futures:
        future.result()
    assert order == ["busy", "other", "busy", "other", "busy"]


def test_a_request_that_gave_up_takes_no_slot() -> None:
    slots = slots_of(1, wait_s=0.01)
    with slots.acquire("one"), pytest.raises(Overloaded), slots.acquire("other"):
        pass

    with slots.acquire("other"):
        assert waiting(slots) == 0


def hold(slots: DecoderSlots, client: str, order: list[str]) -> None:
    with slots.acquire(client):
        order.append(client)
