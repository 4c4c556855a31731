"""The number of candidates of a search: enough for every segment, and never a failed search."""

from collections.abc import Sequence

import pytest

from common.errors import StoreError, StoreUnavailable
from common.store.elastic.num_candidates import (
    LEAST,
    MOST,
    READ_AGAIN_AFTER_S,
    NumCandidates,
    considered,
    enough,
    needed,
)

TIERS = [2_500_000, *[250_000] * 3, *[25_000] * 8, *[2_500] * 10]
LAYOUTS = {
    "one segment": [[1_000_000]],
    "tiers": [TIERS],
    "equal segments": [[100_000] * 20],
    "one large and many small": [[3_000_000, *[100] * 50]],
    "different shards": [[50_000], TIERS, []],
}


class Segments:
    """The segments of an index, or the error of reading them; it counts the reads."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.error: StoreError | None = None
        self.reads = 0

    def read(self) -> list[Sequence[int]]:
        self.reads += 1
        if self.error:
            raise self.error
        return [self.sizes]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("shards", LAYOUTS.values(), ids=LAYOUTS)
def test_every_segment_gets_enough_candidates(shards: Sequence[Sequence[int]]) -> None:
    number = needed(shards)

    for sizes in shards:
        for size in sizes:
            assert considered(number, size / sum(sizes)) >= enough(size) * 0.999


def test_number_is_not_larger_than_needed() -> None:
    number = needed([TIERS])

    assert any(considered(number - 1, size / sum(TIERS)) < enough(size) for size in TIERS)


@pytest.mark.parametrize("sizes", [[], [0], [500], [500, 0]])
def test_small_indices_have_the_least_number(sizes: Sequence[int]) -> None:
    assert needed([sizes]) == LEAST


def test_number_is_within_the_servers_limit() -> None:
    assert needed([[10**10] * 100]) == MOST


def test_sizes_are_read_once_a_minute() -> None:
    segments, clock = Segments(1_000), Clock()
    number = NumCandidates(segments.read, clock=clock)
    before = [number.of("images-1"), number.of("images-1")]
    segments.sizes = (3_000_000,)

    clock.now = READ_AGAIN_AFTER_S

    assert before == [LEAST, LEAST]
    assert number.of("images-1") == needed([segments.sizes]) > LEAST
    assert segments.reads == 2


def test_another_index_behind_the_alias_is_read() -> None:
    segments = Segments(1_000)
    number = NumCandidates(segments.read, clock=Clock())
    number.of("images-1")
    segments.sizes = (3_000_000,)

    assert number.of("images-2") == needed([segments.sizes])


@pytest.mark.parametrize("error", [StoreUnavailable("time-out"), StoreError("no privilege")])
def test_unreadable_sizes_keep_the_last_number(error: StoreError) -> None:
    segments, clock = Segments(3_000_000), Clock()
    number = NumCandidates(segments.read, clock=clock)
    last = number.of("images-1")
    segments.error, clock.now = error, READ_AGAIN_AFTER_S

    assert number.of("images-1") == last
