"""Probes: whoever asks waits a bounded time, and what is silent is asked once at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import sleep

import pytest

from common.errors import MatchError, QueueUnavailable
from common.probes import Probe, Unanswered

WITHIN_S = 30


class Oracle:
    """Answers with the number of the question, once it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.may = Event()
        self.may.set()

    def ask(self) -> int:
        self.asked += 1
        number = self.asked
        assert self.may.wait(WITHIN_S)
        return number


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    oracle = Oracle()
    yield oracle
    oracle.may.set()


def test_each_caller_gets_an_answer_of_now(oracle: Oracle) -> None:
    probe = Probe(oracle.ask)

    assert [probe.answer(within_s=WITHIN_S) for _ in range(3)] == [1, 2, 3]


def test_an_answer_that_is_young_enough_is_given_again(oracle: Oracle) -> None:
    probe = Probe(oracle.ask)

    assert [probe.answer(within_s=WITHIN_S, not_older_s=WITHIN_S) for _ in range(3)] == [1, 1, 1]


def test_what_is_silent_is_waited_for_no_longer_than_asked_for_and_asked_once(oracle: Oracle) -> None:
    probe = Probe(oracle.ask)
    oracle.may.clear()

    for _ in range(3):
        with pytest.raises(Unanswered, match=r"no answer within 0\.01 s"):
            probe.answer(within_s=0.01)

    assert oracle.asked == 1


def test_what_was_silent_is_heard_again(oracle: Oracle) -> None:
    probe = Probe(oracle.ask)
    oracle.may.clear()
    with pytest.raises(Unanswered):
        probe.answer(within_s=0.01)

    oracle.may.set()

    assert probe.answer(within_s=WITHIN_S) >= 1


def test_all_who_wait_get_the_one_answer(oracle: Oracle) -> None:
    probe = Probe(oracle.ask)
    oracle.may.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(probe.answer, within_s=WITHIN_S) for _ in range(8)]
        while oracle.asked < 1:
            sleep(0.01)

        oracle.may.set()

        assert {one.result() for one in waiting} <= {1, 2}


@pytest.mark.parametrize(
    ("error", "told"),
    [(QueueUnavailable("Redis does not answer"), QueueUnavailable), (ZeroDivisionError(), Unanswered)],
)
def test_an_error_is_told_at_once(error: Exception, told: type[MatchError]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(told):
        Probe(fail).answer(within_s=WITHIN_S)
