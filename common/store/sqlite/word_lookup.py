"""Lookup by visual words: the sums of idf of all images that share words with a query, and the best among them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.store.sqlite.blocks import Keys, key
from common.store.sqlite.postings import LivePostings, Words


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The keys of images that share words with a query, in any order, and the sum of idf of each."""

    keys: Keys
    sums: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.keys)

    def best(self, limit: int) -> list[int]:
        """Return the keys of the images with the highest sums, the earliest first among equal ones."""
        keys, sums = self.keys, self.sums
        if len(keys) > limit:
            least = np.partition(sums, len(sums) - limit)[len(sums) - limit]
            kept = sums >= least
            keys, sums = keys[kept], sums[kept]
        best: list[int] = keys[np.lexsort((keys, -sums))][:limit].tolist()
        return best

    def among(self, keys: Keys) -> "Scored":
        """Return only the images of these ascending keys."""
        kept = np.isin(self.keys, keys, assume_unique=True)
        return Scored(self.keys[kept], self.sums[kept])


def score(parts: Sequence[LivePostings], words: Words, *, collection: int) -> Scored:
    """Return the images of the collection that have any of `words`; each different word counts once.

    The idf is Lucene's, so that all stores rank alike: it is of all collections, and dead images count in the number of
    those that have a word.
    """
    words = np.unique(words)
    matches = [part.postings.find(words) for part in parts]
    having = np.sum([counts for _, counts in matches], axis=0, dtype=np.int64) if matches else np.zeros(len(words))
    images = sum(len(part) for part in parts)
    idf = np.log1p((np.maximum(images - having, 0) + 0.5) / (having + 0.5))
    keys: list[Keys] = [np.zeros(0, np.int64)]
    sums: list[NDArray[np.float64]] = [np.zeros(0)]
    for part, (starts, counts) in zip(parts, matches, strict=True):
        first, end = np.searchsorted(part.postings.keys, [key(collection, 0), key(collection + 1, 0)])
        if first < end:
            each = _sums(part, starts, counts, idf)[first:end]
            shared = np.flatnonzero(each)
            keys.append(part.postings.keys[first:end][shared])
            sums.append(each[shared])
    return Scored(np.concatenate(keys), np.concatenate(sums))


def _sums(
    part: LivePostings, starts: NDArray[np.int64], counts: NDArray[np.int64], idf: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return for each row the sum of idf of its words, which begin at `starts`; 0 for dead images."""
    offsets = np.cumsum(counts) - counts
    positions = np.arange(counts.sum()) + np.repeat(starts - offsets, counts)
    weights = np.repeat(idf, counts)
    sums = np.bincount(part.postings.rows[positions], weights, len(part.postings.keys)).astype(np.float64, copy=False)
    sums[part.dead] = 0
    return sums
