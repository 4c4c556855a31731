"""Coalesced calls: concurrent callers share one run."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.errors import StoreUnavailable
from common.store.elastic.coalesced import Coalesced
from support.waiting import wait_until


def test_callers_during_a_run_share_the_next() -> None:
    began, gate = threading.Semaphore(0), threading.Semaphore(0)
    runs: list[int] = []
    callers: list[int] = []

    def act() -> None:
        runs.append(1)
        began.release()
        gate.acquire()

    def call() -> None:
        callers.append(1)
        coalesced()

    coalesced = Coalesced(act)
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(call)
        began.acquire()
        rest = [pool.submit(call) for _ in range(19)]
        wait_until(lambda: len(callers) == 20)
        gate.release()
        began.acquire()
        assert first.result() is None
        assert not any(done.done() for done in rest)
        gate.release(40)
        for done in rest:
            done.result()

    # Two, and some more for callers that were slow to arrive.
    assert 2 <= len(runs) < 10


def test_a_caller_waits_for_a_run_begun_later() -> None:
    written, seen = [0], [0]

    def refresh() -> None:
        seen[0] = written[0]

    coalesced, lock = Coalesced(refresh), threading.Lock()

    def write_and_wait(_: int) -> bool:
        with lock:
            written[0] += 1
            number = written[0]
        coalesced()
        return seen[0] >= number

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(write_and_wait, range(2_000)))


def test_a_failed_run_raises_and_the_next_succeeds() -> None:
    outcomes = iter([StoreUnavailable("away"), None])

    def act() -> None:
        if error := next(outcomes):
            raise error

    coalesced = Coalesced(act)

    with pytest.raises(StoreUnavailable):
        coalesced()
    coalesced()
    assert list(outcomes) == []
