"""The number of candidates that a search needs: each segment of the index has a graph of its own."""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic

from common.errors import StoreError

# Segments grow slowly: their sizes are read again after this time.
READ_AGAIN_AFTER_S = 60.0
# Lucene adds this multiple of the standard deviation to a segment's share of the candidates.
SHARE_MARGIN = 16
# 200 missed 2 of 688 altered photographs among 300,000 images, 300 none. It is also enough for a minute of writes.
LEAST = 300
# The server rejects more.
MOST = 10_000
# Recall .999 of synthetic pairs below the cutoff was measured with 15 candidates in 10,000 images, 100 in 100,000, and
# 250 in 300,000. Altered photographs are missed more often. With 2.7 times as many, 1 of the 2,715 is still missed.
EF, PER, GROWTH = 270, 100_000, 0.8


class NumCandidates:
    """`num_candidates` for the segments that the index has now, or had a minute ago.

    `read` returns the sizes of each shard's segments. A size that cannot be read fails no search: the number stays.
    """

    def __init__(self, read: Callable[[], Iterable[Sequence[int]]], *, clock: Callable[[], float] = monotonic) -> None:
        self._read = read
        self._clock = clock
        self._reading = threading.Lock()
        self._read_again_at = -math.inf
        self._index = ""
        self._number = LEAST

    def of(self, index: str) -> int:
        """Return the number for the index with this name, not that of its alias."""
        is_due = index != self._index or self._clock() >= self._read_again_at
        # One search reads the sizes, and the others do not wait for it.
        if is_due and self._reading.acquire(blocking=False):
            try:
                self._index, self._read_again_at = index, self._clock() + READ_AGAIN_AFTER_S
                # An outage is reported by the search. A user may lack the privilege to monitor the index.
                with suppress(StoreError):
                    self._number = needed(self._read())
            finally:
                self._reading.release()
        return self._number


def needed(shards: Iterable[Sequence[int]]) -> int:
    """Return the least `num_candidates` that is enough for every segment, by the sizes of each shard's segments."""
    numbers = [_for_segment(enough(size), size / sum(sizes)) for sizes in shards for size in sizes if size]
    return min(math.ceil(max([LEAST, *numbers])), MOST)


def enough(size: int) -> float:
    """Return the number of candidates that find .999 of the pairs below the cutoff in a segment of this size."""
    return EF * math.pow(size / PER, GROWTH)


def considered(num_candidates: float, share: float) -> float:
    """Return how many candidates Lucene 10.3 considers in a segment with this share of a shard's documents.

    Earlier versions consider all in each segment.

    >>> considered(500, 1), considered(400, 0.5)
    (500.0, 360.0)
    """
    return num_candidates * share + SHARE_MARGIN * math.sqrt(num_candidates * share * (1 - share))


def _for_segment(candidates: float, share: float) -> float:
    """Return the `num_candidates` with which a segment considers so many; the inverse of `considered`."""
    half = SHARE_MARGIN / 2 * math.sqrt(1 - share)
    return (math.sqrt(half**2 + candidates) - half) ** 2 / share
