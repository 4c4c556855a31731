"""Silence: whoever asks a server that is silent asks alone."""

import pytest

from common.silence import PAUSE_S, Silence


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
def silence(clock: Clock) -> Silence:
    return Silence(clock=clock)


def test_a_server_that_answers_is_not_silent(silence: Silence) -> None:
    assert not silence.lasts


def test_right_after_a_missing_answer_nobody_asks(silence: Silence) -> None:
    silence.begin(waited_s=5)

    assert silence.lasts
    assert not silence.may_ask(answer_within_s=5)


def test_after_a_pause_one_asks_and_the_others_do_not(silence: Silence, clock: Clock) -> None:
    silence.begin(waited_s=5)
    clock.now += PAUSE_S

    assert [silence.may_ask(answer_within_s=5) for _ in range(3)] == [True, False, False]


def test_one_that_asks_and_is_never_heard_of_again_is_followed_by_another(silence: Silence, clock: Clock) -> None:
    silence.begin(waited_s=5)
    clock.now += PAUSE_S
    silence.may_ask(answer_within_s=5)
    clock.now += 5

    assert silence.may_ask(answer_within_s=5)


def test_an_answer_ends_it(silence: Silence) -> None:
    silence.begin(waited_s=5)

    silence.end()

    assert not silence.lasts


def test_a_server_that_answered_others_meanwhile_is_not_silent(silence: Silence, clock: Clock) -> None:
    silence.end()
    clock.now += 1

    silence.begin(waited_s=5)

    assert not silence.lasts
