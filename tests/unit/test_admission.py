"""Admission: new work is refused while Redis has little memory left."""

from contextlib import suppress
from typing import Any

import pytest

from common.errors import Overloaded
from common.queue.admission import Admission

MOST = 1_000_000


class Memory:
    """A Redis of which only the memory is asked; `looks` counts how often."""

    def __init__(self, *, used: int, most: int = MOST) -> None:
        self.used = used
        self.most = most
        self.looks = 0

    def info(self, section: str) -> dict[str, Any]:
        assert section == "memory"
        self.looks += 1
        return {"used_memory": self.used, "maxmemory": self.most}


def admission(memory: Memory) -> Admission:
    return Admission(memory, max_percent=80)  # type: ignore[arg-type]


@pytest.fixture
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is given away makes it look again."""
    monkeypatch.setattr("common.queue.admission.MEASURE_EVERY_S", float("inf"))


def test_without_maxmemory_nothing_is_refused() -> None:
    admission(Memory(used=10**12, most=0)).check(10**9)


def test_only_work_that_does_not_fit_is_refused() -> None:
    gate = admission(Memory(used=700_000))

    gate.check(90_000)
    with pytest.raises(Overloaded) as refused:
        gate.check(200_000)

    assert refused.value.retry_after > 0


def test_freed_memory_is_available_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.queue.admission.MEASURE_EVERY_S", 0)
    memory = Memory(used=900_000)
    gate = admission(memory)
    with pytest.raises(Overloaded):
        gate.check()

    memory.used = 100_000

    gate.check()


@pytest.mark.usefixtures("_no_clock")
def test_a_burst_between_measurements_stays_below_the_limit() -> None:
    memory = Memory(used=0)
    gate = admission(memory)

    for _ in range(200):
        with suppress(Overloaded):
            gate.check(10_000)
            memory.used += 10_000

    assert 700_000 <= memory.used <= 800_000


@pytest.mark.usefixtures("_no_clock")
def test_with_free_memory_few_adds_measure_it() -> None:
    memory = Memory(used=0)
    gate = admission(memory)

    for _ in range(100):
        gate.check(100)

    assert memory.looks == 1


@pytest.mark.parametrize(("used", "crowded"), [(740_000, False), (760_000, True), (999_000, True)])
def test_nearly_full_is_reported_before_work_is_refused(used: int, crowded: bool) -> None:  # noqa: FBT001 - a parameter
    assert admission(Memory(used=used)).is_nearly_full() is crowded
