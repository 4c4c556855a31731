"""The circuit breaker: whoever asks a server that is silent asks alone."""

import pytest

from common.circuit_breaker import PAUSE_S, CircuitBreaker


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(clock=clock)


def test_a_server_that_answers_is_not_silent(breaker: CircuitBreaker) -> None:
    assert not breaker.is_open


def test_right_after_a_missing_answer_nobody_asks(breaker: CircuitBreaker) -> None:
    breaker.trip(waited_s=5)

    assert breaker.is_open
    assert not breaker.may_probe(answer_within_s=5)


def test_after_a_pause_one_asks_and_the_others_do_not(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.trip(waited_s=5)
    clock.now += PAUSE_S

    assert [breaker.may_probe(answer_within_s=5) for _ in range(3)] == [True, False, False]


def test_one_that_asks_and_is_never_heard_of_again_is_followed_by_another(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    breaker.trip(waited_s=5)
    clock.now += PAUSE_S
    breaker.may_probe(answer_within_s=5)
    clock.now += 5

    assert breaker.may_probe(answer_within_s=5)


def test_an_answer_ends_it(breaker: CircuitBreaker) -> None:
    breaker.trip(waited_s=5)

    breaker.reset()

    assert not breaker.is_open


def test_a_server_that_answered_others_meanwhile_is_not_silent(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.reset()
    clock.now += 1

    breaker.trip(waited_s=5)

    assert not breaker.is_open
