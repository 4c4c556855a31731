"""Visual words: descriptors to numbers that similar patches share, equal for a patch and its mirror image.

A word is a product quantisation (Jégou, Douze and Schmid 2011) of a RootSIFT descriptor (Arandjelović and Zisserman
2012): the nearest of 1,024 centres for each half. So 128 KiB of centres have 2**20 words. All arithmetic after the
square root is of integers: the same descriptor has the same word on every processor.
"""

import functools
from dataclasses import dataclass
from importlib import resources
from io import BytesIO

import numkong
import numpy as np
from numpy.typing import NDArray

DESCRIPTOR_LENGTH = 128
HALF = DESCRIPTOR_LENGTH // 2
CENTRES = 1024
WORD_BITS = 20
WORDS = 1 << WORD_BITS
"""Number of different words: a word is the number of one centre times CENTRES, plus that of the other."""

# RootSIFT values are square roots of shares. Few exceed a half, so that this scale fills a byte.
_ROOT_SCALE = 512
# Words looked up for a feature of a query: each combination of the nearest centres of the two halves.
_NEAREST = 2
# The mirror form of a patch is in doubt where its projection is below this share of the largest possible: a query
# looks up both.
_DOUBT = 0.015

# A descriptor has 4 x 4 cells of 8 directions. Mirrored across the feature's own direction, the rows of cells are
# exchanged, and the directions change sign.
_CELLS = np.arange(DESCRIPTOR_LENGTH).reshape(4, 4, 8)
_MIRROR = _CELLS[::-1][:, :, -np.arange(8) % 8].ravel()


def _antisymmetric() -> NDArray[np.int32]:
    """Return fixed pseudo-random weights (128,): their product with a descriptor changes its sign in the mirror."""
    weights = np.random.Generator(np.random.PCG64(5)).integers(-64, 64, DESCRIPTOR_LENGTH)
    return (weights - weights[_MIRROR]).astype(np.int32)


_SIDE = _antisymmetric()


@dataclass(frozen=True, slots=True, eq=False)
class LookupWords:
    """The words that the features of a query may have.

    `own` is the likeliest word of each feature. The other arrays have several entries for each: the index of the
    feature, a word, and whether the patch was mirrored to name it.
    """

    own: NDArray[np.uint32]
    feature: NDArray[np.intp]
    word: NDArray[np.uint32]
    mirrored: NDArray[np.bool_]


class Vocabulary:
    """The words of a set of centres (2, 1024, 64): uint8, in the scale of `root`."""

    def __init__(self, centres: NDArray[np.uint8]) -> None:
        if centres.shape != (2, CENTRES, HALF) or centres.dtype != np.uint8:
            message = f"centres must be uint8 (2, {CENTRES}, {HALF}), not {centres.dtype} {centres.shape}"
            raise ValueError(message)
        self._packed = [numkong.dots_pack(np.ascontiguousarray(half), dtype="uint8") for half in centres]
        self._squares = [(half.astype(np.int32) ** 2).sum(axis=1, dtype=np.int32) for half in centres]

    def words(self, descriptors: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Return the word (n,) of each of `descriptors` (n, 128), and whether its patch was mirrored to name it."""
        forms, mirrored, _ = _canonical(root(descriptors))
        first, second = (self._distances(forms, half).argmin(axis=1) for half in (0, 1))
        return (first * CENTRES + second).astype(np.uint32), mirrored

    def lookup_words(self, descriptors: NDArray[np.uint8]) -> LookupWords:
        """Return the words that `descriptors` (n, 128) of a query may have."""
        forms, mirrored, in_doubt = _canonical(root(descriptors))
        again = np.flatnonzero(in_doubt)
        forms = np.concatenate([forms, forms[again][:, _MIRROR]])
        first, second = (_nearest(self._distances(forms, half)) for half in (0, 1))
        words = (first[:, :, np.newaxis] * CENTRES + second[:, np.newaxis, :]).reshape(len(forms), _NEAREST**2)
        feature = np.concatenate([np.arange(len(descriptors)), again])
        side = np.concatenate([mirrored, ~mirrored[again]])
        own = words[: len(descriptors), 0].astype(np.uint32)
        every = _NEAREST**2
        return LookupWords(own, feature.repeat(every), words.ravel().astype(np.uint32), side.repeat(every))

    def _distances(self, forms: NDArray[np.uint8], half: int) -> NDArray[np.int32]:
        """Return (n, 1024): the squared distance of one half of each form to each centre, less the form's square."""
        part = np.ascontiguousarray(forms[:, HALF * half : HALF * (half + 1)])
        distances: NDArray[np.int32] = np.asarray(numkong.dots_packed(part, self._packed[half])).view(np.int32)
        distances *= -2
        distances += self._squares[half]
        return distances


def root(descriptors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RootSIFT, (n, 128) in units of 1/512: the square root of each value's share of its descriptor's sum."""
    sums = np.maximum(descriptors.sum(axis=1, dtype=np.int64), 1)
    shares = descriptors.astype(np.float64) / sums[:, np.newaxis]
    roots: NDArray[np.uint8] = np.minimum(np.rint(_ROOT_SCALE * np.sqrt(shares)), 255).astype(np.uint8)
    return roots


def canonical(roots: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return each of `roots` (n, 128) in the form that it shares with its mirror image."""
    forms, _, _ = _canonical(roots)
    return forms


def _canonical(roots: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the form (n, 128), whether it is the mirrored one (n,), and whether that was a close decision (n,)."""
    products = roots.astype(np.int32) @ _SIDE
    mirrored = products < 0
    forms: NDArray[np.uint8] = np.where(mirrored[:, np.newaxis], roots[:, _MIRROR], roots)
    return forms, mirrored, np.abs(products) < _DOUBT * _ROOT_SCALE * np.linalg.norm(_SIDE)


def _nearest(distances: NDArray[np.int32]) -> NDArray[np.intp]:
    """Return (n, 2): the columns of the smallest two of each row, the nearest first."""
    rows = np.arange(len(distances))
    first = distances.argmin(axis=1)
    distances[rows, first] = np.iinfo(np.int32).max
    return np.stack([first, distances.argmin(axis=1)], axis=1)


@functools.cache
def shipped_vocabulary() -> Vocabulary:
    """Return the vocabulary of the centres beside this module; `dev/train_centres.py` trained them."""
    data = resources.files(__package__).joinpath("centres.npy").read_bytes()
    return Vocabulary(np.load(BytesIO(data), allow_pickle=False))
