"""Lookup by visual words: the sums of idf of all images that share words with a query, and the best among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.store.sqlite.blocks import Keys, Positions, key
from common.store.sqlite.postings import LivePostings, Words, rows_of

Sums: TypeAlias = NDArray[np.float64]

# Of this share of the sums, the lowest one that is wanted bounds those of all: a partition of all takes longer.
_SAMPLED = 16


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Groups of images by their ascending keys, and the sum of idf of each; 0 without a common word."""

    groups: Sequence[tuple[Keys, Sums]]

    def best(self, limit: int) -> list[int]:
        """Return the keys of the images with the highest sums, the earliest first among equal ones."""
        rows = [_highest(sums, limit) for _, sums in self.groups]
        highest = [(keys[of], sums[of]) for (keys, sums), of in zip(self.groups, rows, strict=True)]
        keys = np.concatenate([np.zeros(0, np.int64), *(keys for keys, _ in highest)])
        sums = np.concatenate([np.zeros(0), *(sums for _, sums in highest)])
        best: list[int] = keys[np.lexsort((keys, -sums))][:limit].tolist()
        return best

    def among(self, keys: Keys) -> "Scored":
        """Return only the images of these ascending keys."""
        return Scored([(own[kept], sums[kept]) for own, sums in self.groups for kept in [rows_of(own, keys)]])


def score(parts: Sequence[LivePostings], words: Words, *, collection: int) -> Scored:
    """Return the images of the collection with their sums for `words`; each different word counts once.

    The idf is Lucene's, so that all stores rank alike: it is of all collections, and dead images count in the number of
    those that have a word.
    """
    words = np.unique(words)
    matches = [part.postings.find(words) for part in parts]
    having = np.sum([counts for _, counts in matches], axis=0, dtype=np.int64) if matches else np.zeros(len(words))
    images = sum(len(part) for part in parts)
    idf = np.log1p((np.maximum(images - having, 0) + 0.5) / (having + 0.5))
    groups = []
    for part, (starts, counts) in zip(parts, matches, strict=True):
        first, end = np.searchsorted(part.postings.keys, [key(collection, 0), key(collection + 1, 0)])
        if first < end:
            groups.append((part.postings.keys[first:end], _sums(part, starts, counts, idf)[first:end]))
    return Scored(groups)


def _highest(sums: Sums, limit: int) -> Positions:
    """Return the rows of at least the `limit` highest sums, except those without a common word."""
    sample = sums[::_SAMPLED]
    bound = np.partition(sample, len(sample) - limit)[len(sample) - limit] if len(sample) >= limit else 0
    return np.flatnonzero(sums >= bound) if bound else np.flatnonzero(sums)


def _sums(part: LivePostings, starts: NDArray[np.int64], counts: NDArray[np.int64], idf: NDArray[np.float64]) -> Sums:
    """Return for each row the sum of idf of its words, which begin at `starts`; 0 for dead images."""
    offsets = np.cumsum(counts) - counts
    positions = np.arange(counts.sum()) + np.repeat(starts - offsets, counts)
    weights = np.repeat(idf, counts)
    sums = np.bincount(part.postings.rows[positions], weights, len(part.postings.keys)).astype(np.float64, copy=False)
    sums[part.dead] = 0
    return sums
