"""Lookup by visual words: the sums of idf of all images that share words with a query, and the best among them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.store.sqlite.blocks import Ids
from common.store.sqlite.postings import LivePostings, Words


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The ids of images that share words with a query, in any order, and the sum of idf of each."""

    ids: Ids
    sums: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def best(self, limit: int) -> list[int]:
        """Return the ids of the images with the highest sums, the earliest first among equal ones."""
        ids, sums = self.ids, self.sums
        if len(ids) > limit:
            least = np.partition(sums, len(sums) - limit)[len(sums) - limit]
            kept = sums >= least
            ids, sums = ids[kept], sums[kept]
        best: list[int] = ids[np.lexsort((ids, -sums))][:limit].tolist()
        return best

    def among(self, ids: Ids) -> "Scored":
        """Return only the images of these ascending ids."""
        kept = np.isin(self.ids, ids, assume_unique=True)
        return Scored(self.ids[kept], self.sums[kept])


def score(parts: Sequence[LivePostings], words: Words) -> Scored:
    """Return the images that have any of `words`; each different word counts once.

    The idf is Lucene's, so that all stores rank alike: dead images count in the number of those that have a word.
    """
    words = np.unique(words)
    matches = [part.postings.find(words) for part in parts]
    having = np.sum([counts for _, counts in matches], axis=0, dtype=np.int64) if matches else np.zeros(len(words))
    images = sum(len(part) for part in parts)
    idf = np.log1p((np.maximum(images - having, 0) + 0.5) / (having + 0.5))
    ids: list[Ids] = [np.zeros(0, np.int64)]
    sums: list[NDArray[np.float64]] = [np.zeros(0)]
    for part, (starts, counts) in zip(parts, matches, strict=True):
        offsets = np.cumsum(counts) - counts
        positions = np.arange(counts.sum()) + np.repeat(starts - offsets, counts)
        rows = part.postings.rows[positions]
        weights = np.repeat(idf, counts)
        each: NDArray[np.float64] = np.bincount(rows, weights, len(part.postings.images)).astype(np.float64, copy=False)
        each[part.dead] = 0
        shared = np.flatnonzero(each)
        ids.append(part.postings.images[shared])
        sums.append(each[shared])
    return Scored(np.concatenate(ids), np.concatenate(sums))
