"""The circuit breaker: one caller at a time probes a server that does not respond."""

import pytest

from common.circuit_breaker import PAUSE_S, CircuitBreaker
from support.clocks import Clock


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(clock=clock)


def test_breaker_is_closed_at_first(breaker: CircuitBreaker) -> None:
    assert not breaker.is_open


def test_open_breaker_allows_no_probe_at_first(breaker: CircuitBreaker) -> None:
    breaker.trip(waited_s=5)

    assert breaker.is_open
    assert not breaker.may_probe(answer_within_s=5)


def test_one_caller_may_probe_after_the_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.trip(waited_s=5)
    clock.now += PAUSE_S

    assert [breaker.may_probe(answer_within_s=5) for _ in range(3)] == [True, False, False]


def test_another_probe_follows_one_without_a_result(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.trip(waited_s=5)
    clock.now += PAUSE_S
    breaker.may_probe(answer_within_s=5)
    clock.now += 5

    assert breaker.may_probe(answer_within_s=5)


def test_an_answer_closes_the_breaker(breaker: CircuitBreaker) -> None:
    breaker.trip(waited_s=5)

    breaker.reset()

    assert not breaker.is_open


def test_breaker_stays_closed_after_a_concurrent_answer(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.reset()
    clock.now += 1

    breaker.trip(waited_s=5)

    assert not breaker.is_open
