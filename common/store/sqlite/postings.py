"""Postings: for each visual word the images that have it; their form in memory and in segments."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.images.local_features.words import WORDS
from common.store.sqlite.blocks import Keys, Positions

Words: TypeAlias = NDArray[np.uint32]
Rows: TypeAlias = NDArray[np.uint16]

# Images of one group of postings: a posting is the image's row in two bytes.
GROUP = 65_536
# Words that are sorted at a time: numpy sorts numbers of 16 bits by radix, and little of a large group is in memory.
_RANGE = 65_536
_NONE: Positions = np.zeros(0, np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """The words of at most GROUP images.

    `keys` (n,) are the ascending keys of the images, `words` (w,) the ascending different words.
    `rows[starts[i]:starts[i + 1]]` are the rows in `keys` of the images that have the word i, in any order.
    """

    keys: Keys
    words: Words
    starts: NDArray[np.uint32]
    rows: Rows

    def find(self, words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each of `words` the start and the number of its rows."""
        if not len(self.words):
            return np.zeros(len(words), np.int64), np.zeros(len(words), np.int64)
        positions = np.minimum(np.searchsorted(self.words, words), len(self.words) - 1)
        starts = self.starts[positions].astype(np.int64)
        return starts, np.where(self.words[positions] == words, self.starts[positions + 1] - starts, 0)


@dataclass(frozen=True, slots=True, eq=False)
class LivePostings:
    """Postings, and the ascending rows of images that were changed or deleted since."""

    postings: Postings
    dead: Positions = field(default_factory=lambda: _NONE)

    def __len__(self) -> int:
        """Return the number of images that exist."""
        return len(self.postings.keys) - len(self.dead)

    def without(self, keys: Keys) -> "LivePostings":
        """Return the postings with these images dead too; `keys` is ascending."""
        rows = rows_of(self.postings.keys, keys)
        return LivePostings(self.postings, np.union1d(self.dead, rows)) if len(rows) else self


def group(keys: Keys, counts: NDArray[np.intp], words: Words) -> Postings:
    """Return the postings of at most GROUP images.

    `keys` is ascending, `counts` are the numbers of their words, and `words` those of all, ascending in each image.
    """
    rows = np.repeat(np.arange(len(keys)).astype(np.uint16), counts)
    order = np.argsort((words // _RANGE).astype(np.uint8), kind="stable")
    words, rows = words[order], rows[order]
    bounds = np.searchsorted(words // _RANGE, np.arange(WORDS // _RANGE + 1))
    return _grouped(keys, ((words[first:end], rows[first:end]) for first, end in pairwise(bounds)))


def regrouped(sources: Iterable[LivePostings]) -> Iterator[Postings]:
    """Yield the postings of all images that exist, in at most two groups for each GROUP images, and one more.

    No image is in two of the sources.
    """
    pending: list[LivePostings] = []
    for source in sources:
        if not len(source.dead) and len(source) > GROUP // 2:
            yield source.postings
            continue
        if sum(len(each) for each in pending) + len(source) > GROUP:
            yield merged(pending)
            pending = []
        if len(source):
            pending.append(source)
    if pending:
        yield merged(pending)


def merged(sources: Sequence[LivePostings]) -> Postings:
    """Return the postings of all images that exist, at most GROUP, as one group."""
    alive = [np.delete(source.postings.keys, source.dead) for source in sources]
    keys = np.sort(np.concatenate(alive))
    moved = [np.searchsorted(keys, source.postings.keys).astype(np.uint16) for source in sources]
    return _grouped(keys, (_range(sources, moved, first) for first in range(0, WORDS, _RANGE)))


def rows_of(own: Keys, keys: Keys) -> Positions:
    """Return the rows in `own` of those of `keys` that it has; both are ascending."""
    if not len(own):
        return _NONE
    keys = keys[np.searchsorted(keys, own[0]) : np.searchsorted(keys, own[-1], side="right")]
    rows = np.searchsorted(own, keys)
    existing: Positions = rows[own[rows] == keys]
    return existing


def _range(sources: Sequence[LivePostings], moved: Sequence[Rows], first: int) -> tuple[Words, Rows]:
    """Return the words of _RANGE from `first` on, and their rows after the move."""
    words, rows = [np.zeros(0, np.uint32)], [np.zeros(0, np.uint16)]
    for source, new in zip(sources, moved, strict=True):
        postings = source.postings
        begin, end = np.searchsorted(postings.words, [first, first + _RANGE])
        starts = postings.starts[begin : end + 1].astype(np.int64)
        old = postings.rows[starts[0] : starts[-1]]
        each = np.repeat(postings.words[begin:end], np.diff(starts))
        if len(source.dead):
            exists = np.ones(len(postings.keys), np.bool_)
            exists[source.dead] = False
            kept = exists[old]
            old, each = old[kept], each[kept]
        words.append(each)
        rows.append(new[old])
    return np.concatenate(words), np.concatenate(rows)


def _grouped(keys: Keys, ranges: Iterable[tuple[Words, Rows]]) -> Postings:
    """Return the postings of words and their rows, by ranges of _RANGE words; a row may repeat a word."""
    words, counts, rows = [], [], []
    for each, of in ranges:
        order = np.argsort((each % _RANGE).astype(np.uint16), kind="stable")
        ordered, of_ordered = each[order], of[order]
        is_new = _differ(ordered)
        once = is_new | _differ(of_ordered)
        ordered, is_new = ordered[once], is_new[once]
        starts = np.flatnonzero(is_new)
        words.append(ordered[starts])
        counts.append(np.diff(starts, append=len(ordered)))
        rows.append(of_ordered[once])
    starts = np.append(0, np.cumsum(np.concatenate(counts)))
    return Postings(keys, np.concatenate(words), starts.astype(np.uint32), np.concatenate(rows))


def _differ(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether each value differs from the one before."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]
