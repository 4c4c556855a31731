"""Admission: new work is refused while Redis has little memory left."""

from contextlib import suppress
from typing import Any

import pytest

from common.errors import Overloaded
from common.queue.admission import Admission

MAX_BYTES = 1_000_000


class Memory:
    """A fake Redis that reports its memory; `measurements` counts the calls."""

    def __init__(self, *, used: int, max_bytes: int = MAX_BYTES) -> None:
        self.used = used
        self.max_bytes = max_bytes
        self.measurements = 0

    def info(self, section: str) -> dict[str, Any]:
        assert section == "memory"
        self.measurements += 1
        return {"used_memory": self.used, "maxmemory": self.max_bytes}


def admission_of(memory: Memory) -> Admission:
    return Admission(memory, max_percent=80)  # type: ignore[arg-type]


@pytest.fixture
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only admitted bytes cause another measurement."""
    monkeypatch.setattr("common.queue.admission.MEASURE_EVERY_S", float("inf"))


def test_without_maxmemory_nothing_is_refused() -> None:
    admission_of(Memory(used=10**12, max_bytes=0)).check(10**9)


def test_only_work_that_does_not_fit_is_refused() -> None:
    admission = admission_of(Memory(used=700_000))

    admission.check(90_000)
    with pytest.raises(Overloaded) as refused:
        admission.check(200_000)

    assert refused.value.retry_after > 0


def test_freed_memory_is_available_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.queue.admission.MEASURE_EVERY_S", 0)
    memory = Memory(used=900_000)
    admission = admission_of(memory)
    with pytest.raises(Overloaded):
        admission.check()

    memory.used = 100_000

    admission.check()


@pytest.mark.usefixtures("_no_clock")
def test_a_burst_between_measurements_stays_below_the_limit() -> None:
    memory = Memory(used=0)
    admission = admission_of(memory)

    for _ in range(200):
        with suppress(Overloaded):
            admission.check(10_000)
            memory.used += 10_000

    assert 700_000 <= memory.used <= 800_000


@pytest.mark.usefixtures("_no_clock")
def test_with_free_memory_few_adds_measure_it() -> None:
    memory = Memory(used=0)
    admission = admission_of(memory)

    for _ in range(100):
        admission.check(100)

    assert memory.measurements == 1


@pytest.mark.parametrize(("used", "nearly_full"), [(740_000, False), (760_000, True), (999_000, True)])
def test_nearly_full_is_reported_before_work_is_refused(used: int, nearly_full: bool) -> None:  # noqa: FBT001 - a parameter
    assert admission_of(Memory(used=used)).is_nearly_full() is nearly_full
