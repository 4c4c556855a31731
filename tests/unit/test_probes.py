"""Probes: callers wait a bounded time, and a check never runs twice at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import sleep

import pytest

from common.errors import MatchError, QueueUnavailable
from common.probes import Probe, ProbeTimeout

WITHIN_S = 30


class Dependency:
    """Returns the number of the check, once it is available."""

    def __init__(self) -> None:
        self.checks = 0
        self.available = Event()
        self.available.set()

    def check(self) -> int:
        self.checks += 1
        number = self.checks
        assert self.available.wait(WITHIN_S)
        return number


@pytest.fixture
def dependency() -> Iterator[Dependency]:
    dependency = Dependency()
    yield dependency
    dependency.available.set()


def test_each_caller_gets_a_fresh_result(dependency: Dependency) -> None:
    probe = Probe(dependency.check)

    assert [probe.result(timeout_s=WITHIN_S) for _ in range(3)] == [1, 2, 3]


def test_recent_result_is_reused(dependency: Dependency) -> None:
    probe = Probe(dependency.check)

    assert [probe.result(timeout_s=WITHIN_S, max_age_s=WITHIN_S) for _ in range(3)] == [1, 1, 1]


def test_silent_dependency_is_checked_once_at_a_time(dependency: Dependency) -> None:
    probe = Probe(dependency.check)
    dependency.available.clear()

    for _ in range(3):
        with pytest.raises(ProbeTimeout, match=r"no answer within 0\.01 s"):
            probe.result(timeout_s=0.01)

    assert dependency.checks == 1


def test_dependency_is_checked_again_after_a_timeout(dependency: Dependency) -> None:
    probe = Probe(dependency.check)
    dependency.available.clear()
    with pytest.raises(ProbeTimeout):
        probe.result(timeout_s=0.01)

    dependency.available.set()

    assert probe.result(timeout_s=WITHIN_S) >= 1


def test_concurrent_callers_share_a_check(dependency: Dependency) -> None:
    probe = Probe(dependency.check)
    dependency.available.clear()
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(probe.result, timeout_s=WITHIN_S) for _ in range(8)]
        while dependency.checks < 1:
            sleep(0.01)

        dependency.available.set()

        assert {result.result() for result in results} <= {1, 2}


@pytest.mark.parametrize(
    ("error", "raised"),
    [(QueueUnavailable("Redis does not answer"), QueueUnavailable), (ZeroDivisionError(), ProbeTimeout)],
)
def test_failed_check_raises_at_once(error: Exception, raised: type[MatchError]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(raised):
        Probe(fail).result(timeout_s=WITHIN_S)
