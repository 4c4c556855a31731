"""A collection in memory: signatures, words and features of real images, and of synthetic distractors beside them.

A distractor is vectors only. `parts/collection.py` describes its signature. Its features have the number and the sizes
of those of a real photograph, random positions and angles, and words of different real photographs. So a distractor has
as many words in common with a measured photograph as an unrelated photograph has, on average.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from parts.collection import synthetic

from common.images.flatness import is_flat, is_searchable
from common.images.local_features.extraction import extract
from common.images.local_features.features import Keypoints, LocalFeatures
from common.images.local_features.words import WORDS
from common.images.signature import _boxes, _means, sign
from common.images.signing import sign_all

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Stored:
    """The stored form of an image, and its size without words."""

    signatures: list[NDArray[np.int8]]
    features: LocalFeatures
    bytes: int


def signatures(pixels: Pixels) -> list[NDArray[np.int8]]:
    """Return the searchable signatures of an image: one, two, or none if it is featureless or a smooth gradient."""
    return [signature for signature in sign_all(pixels) if is_searchable(signature)]


def store(pixels: Pixels) -> Stored:
    rows, columns, _ = pixels.shape
    signed = signatures(pixels)
    encoded = extract(pixels, width=columns, height=rows).encode()
    return Stored(signed, LocalFeatures.decode(encoded), sum(one.nbytes for one in signed) + len(encoded))


@dataclass
class Collection:
    """Stored images by row: the real ones first, then the distractors."""

    signatures: NDArray[np.float32]
    owners: NDArray[np.intp]
    flat: NDArray[np.bool_]
    norms: NDArray[np.float32]
    words: NDArray[np.uint32]
    rows: NDArray[np.uint32]
    features: Sequence[LocalFeatures]
    count: int
    begins: NDArray[np.intp] = field(init=False)
    flat_rows: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.begins = np.searchsorted(self.words, np.arange(WORDS + 1))
        self.flat_rows = set(self.owners[self.flat].tolist())

    def distances(self, queries: NDArray[np.int8]) -> NDArray[np.float32]:
        """Return (n, rows of signatures): the distance of each of `queries` (n, 272)."""
        many = queries.astype(np.float32)
        norms = np.sqrt((many * many).sum(axis=1, keepdims=True))
        squared = norms**2 + self.norms**2 - 2 * (many @ self.signatures.T)
        result: NDArray[np.float32] = np.sqrt(np.maximum(0, squared)) / (norms + self.norms)
        return result

    def candidates(self, words: NDArray[np.uint32], limit: int, *, among: int | None = None) -> list[int]:
        """Return the rows, of the first `among` ones, with the highest sums of the idf of common words."""
        if not len(words):
            return []
        distinct = np.unique(words)
        starts, ends = self.begins[distinct], self.begins[distinct.astype(np.int64) + 1]
        counts = ends - starts
        idf = np.log(self.count / np.maximum(1, counts)).astype(np.float32)
        postings = np.concatenate([self.rows[start:end] for start, end in zip(starts, ends, strict=True)])
        sums = np.bincount(postings, weights=idf.repeat(counts), minlength=self.count)
        best = np.argsort(-sums[:among], kind="stable")[:limit]
        return [int(row) for row in best if sums[row] > 0]


class Distractors(Sequence[LocalFeatures]):
    """Synthetic features by row, made when they are read."""

    def __init__(self, rng: np.random.Generator, real: Sequence[LocalFeatures], count: int) -> None:
        self._real = real
        self._seeds = rng.integers(0, 2**32, count)
        pool = np.concatenate([features.words for features in real])
        sizes = rng.choice([len(features.words) for features in real], count)
        self._ends = np.cumsum(sizes)
        total = int(sizes.sum())
        self.words: NDArray[np.uint32] = rng.choice(pool, total).astype(np.uint32)
        self.rows = np.repeat(np.arange(count), sizes)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> LocalFeatures:  # type: ignore[override]
        start, end = (int(self._ends[row - 1]) if row else 0), int(self._ends[row])
        rng = np.random.default_rng(self._seeds[row])
        like = self._real[int(rng.integers(len(self._real)))]
        count, width, height = end - start, like.width, like.height
        source = rng.integers(0, max(1, len(like.words)), count)
        keypoints = Keypoints(
            rng.uniform(0, width, count),
            rng.uniform(0, height, count),
            like.keypoints.size[source] if len(like.words) else rng.uniform(5, 50, count),
            rng.uniform(0, 2 * np.pi, count),
        )
        words = np.sort(self.words[start:end])
        return LocalFeatures(keypoints, words, rng.random(count) < 0.5, width, height)


def collect(rng: np.random.Generator, real: Sequence[Stored], tuned: Sequence[Pixels], distractors: int) -> Collection:
    """Return a collection of `real` images and of distractors made like `tuned` photographs."""
    made: Sequence[LocalFeatures] = []
    signed = [signature for one in real for signature in one.signatures]
    owners = [row for row, one in enumerate(real) for _ in one.signatures]
    words = [np.unique(one.features.words) for one in real]
    rows = [np.full(len(each), row) for row, each in enumerate(words)]
    if distractors:
        like = [store(pixels) for pixels in tuned]
        made = Distractors(rng, [one.features for one in like], distractors)
        unique = np.unique(made.rows.astype(np.int64) << 20 | made.words)
        words.append((unique & (WORDS - 1)).astype(np.uint32))
        rows.append((unique >> 20) + len(real))
        first = np.array([sign(pixels) for pixels in tuned])
        levels = np.array([_means(_boxes(pixels)) for pixels in tuned])
        vectors = np.concatenate(list(synthetic(rng, first, levels, distractors)))
        signed += list(vectors)
        owners += range(len(real), len(real) + distractors)
    matrix = np.array(signed, dtype=np.float32)
    all_words, all_rows = np.concatenate(words), np.concatenate(rows).astype(np.uint32)
    order = np.argsort(all_words, kind="stable")
    return Collection(
        signatures=matrix,
        owners=np.array(owners),
        flat=np.array([is_flat(signature) for signature in signed]),
        norms=np.sqrt((matrix * matrix).sum(axis=1)),
        words=all_words[order].astype(np.uint32),
        rows=all_rows[order],
        features=_Chain([one.features for one in real], made),
        count=len(real) + distractors,
    )


class _Chain(Sequence[LocalFeatures]):
    def __init__(self, *parts: Sequence[LocalFeatures]) -> None:
        self._first, self._second = parts

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, row: int) -> LocalFeatures:  # type: ignore[override]
        return self._first[row] if row < len(self._first) else self._second[row - len(self._first)]
