"""Pixels to signature, and the distance between two signatures.

The algorithm is that of Wong, Bern and Goldberg, "An image signature for any kind of image" (ICIP 2002). Every value
equals that of image-match 1.1.2. Grey levels are averaged in boxes around a 9 x 9 grid. For each pair of neighbouring
boxes a value states whether the first is much darker (-2), darker (-1), the same (0), lighter (1) or much lighter (2).
"""

import functools
import math
from bisect import bisect_left
from itertools import pairwise
from typing import TypeAlias, TypeVar

import numkong
import numpy as np
from numpy.typing import NDArray

LENGTH = 272
Signature: TypeAlias = NDArray[np.int8]
"""272 values from -2 to 2: the independent ones of image-match's 648."""

_Distance = TypeVar("_Distance", float, NDArray[np.float64])

GRID = 9
"""Boxes along each side of the grid."""

# Shares of red, green and blue in grey (ITU-R BT.709, as scikit-image rounds them).
_LUMA = np.array([0.2125, 0.7154, 0.0721])
_WHITE = 255
_CROP = 0.05
# Greys nearer than this, on a scale from 0 to 1, count as the same.
_TOLERANCE = 2 / 255
_SMALLEST_BOX_PX = 2
_BOXES_ACROSS = 20
# numpy sums a box in buffers of this many values; another order of summation changes the last bit.
_BUFFER = 8192
# The colours of a batch of boxes fit into a core's cache as float64.
_AT_ONCE_PX = 16_384
# Two differences of image-match's means are this near to those of exact sums. In a box of n pixels the rounding of each
# mean is below 4 n / 2^53, which is 4e-10 for a million pixels.
_MARGIN = 2e-9
# Lines compared at once, from the second on.
_LINES = 16

# A box's neighbours as (rows down, columns right), in image-match's order: opposite steps are at mirrored positions.
_STEPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def _pairs() -> NDArray[np.intp]:
    """Return (272, 3): a box, the neighbour that it is compared with, and the index of that step in `_STEPS`.

    Boxes are numbered row by row. Only steps to the right and down count, so that no pair occurs twice.
    """
    inside = range(GRID)
    return np.array(
        [
            (row * GRID + column, (row + down) * GRID + column + right, step)
            for row in inside
            for column in inside
            for step, (down, right) in enumerate(_STEPS)
            if step >= len(_STEPS) // 2 and row + down in inside and column + right in inside
        ]
    )


FIRST, SECOND, _STEP = _pairs().T
"""The two boxes that each of the 272 values compares."""
# The position of each value among the 648, and of its negative: at the other box, for the opposite step.
_FORTH = FIRST * len(_STEPS) + _STEP
_BACK = SECOND * len(_STEPS) + len(_STEPS) - 1 - _STEP


def sign(pixels: NDArray[np.uint8]) -> Signature:
    """Return the signature of RGB `pixels` (height, width, 3) of any size.

    A featureless image has all zeros. Below about 20 pixels a side a signature is mostly noise.
    """
    boxes = _boxes(pixels)
    differences = _differences(_means(boxes))
    sizes = _sorted_sizes(differences)
    if _is_close_call(sizes):
        differences = _differences(_rounded_means(boxes))
        sizes = _sorted_sizes(differences)
    return _compare(differences, sizes)


def expand(signature: Signature) -> NDArray[np.int8]:
    """Return image-match's form: (648,), eight neighbours for each of 81 boxes, zero beyond the border."""
    values = np.zeros(GRID * GRID * len(_STEPS), dtype=np.int8)
    values[_FORTH] = signature
    values[_BACK] = -signature
    return values


def contract(expanded: NDArray[np.int8]) -> Signature:
    """Return the independent values of image-match's form; the inverse of `expand`."""
    signature: Signature = expanded[_FORTH]
    return signature


def is_featureless(signature: Signature) -> bool:
    """Return whether a signature is all zeros: no search returns an image with it."""
    return not signature.any()


def distance(one: Signature, other: Signature) -> float:
    """Return 0.0 for equal signatures, 1.0 for opposite ones; with a featureless one always 1.0, never NaN."""
    return float(distances(one, other[np.newaxis])[0])


def distances(query: Signature, rows: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return the distance of `query` (272,) to each of `rows` (n, 272) as (n,), equal to image-match's in every bit."""
    apart: NDArray[np.float64] = distance_matrix(query[np.newaxis], rows)[0]
    return apart


def distance_matrix(queries: NDArray[np.int8], rows: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return the distances of `queries` (m, 272) to `rows` (n, 272) as (m, n), equal to image-match's in every bit."""
    # Sums of small integers are exact in float32, and BLAS computes them, unlike those of integer arrays.
    one, many = queries.astype(np.float32), rows.astype(np.float32)
    return _apart(_products(one, one)[:, np.newaxis], _products(many, many), (one @ many.T).astype(np.float64))


def pair_distances(ones: NDArray[np.int8], others: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return the distance of each of `ones` (n, 272) to the one of `others` (n, 272) beside it, as (n,)."""
    one, other = ones.astype(np.float32), others.astype(np.float32)
    return _apart(_products(one, one), _products(other, other), _products(one, other))


def _products(ones: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the product of each row with the one beside it."""
    products: NDArray[np.float64] = np.einsum("ij,ij->i", ones, others).astype(np.float64)
    return products


def _apart(
    squares: NDArray[np.float64], other_squares: NDArray[np.float64], products: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return distances from the products of signatures with themselves and with each other."""
    # The 648 values contain each of the 272 twice: doubling the squares gives the same rounding of the roots.
    squares, other_squares = 2 * squares, 2 * other_squares
    apart_squared = squares + other_squares - 4 * products
    norms = np.sqrt(squares) + np.sqrt(other_squares)
    featureless = norms == 0
    return np.where(featureless, 1.0, np.sqrt(apart_squared) / np.where(featureless, 1.0, norms))


def score(distance: _Distance) -> _Distance:
    """Return the similarity in percent, of one distance or an array: 100 for distance 0, and 0 for distance 1."""
    return (1.0 - distance) * 100.0


def _boxes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the pixels of the 81 boxes, row by row: (81, tall, wide, 3), a fifth of the image."""
    height, width, colours = pixels.shape
    side = max(_SMALLEST_BOX_PX, int(0.5 + min(height, width) / _BOXES_ACROSS))
    tall, wide = min(side, height), min(side, width)
    tops = _starts(*_limits(pixels), side)[:, np.newaxis]
    lefts = _starts(*_limits(pixels.swapaxes(0, 1)), side)
    windows = _windows(np.ascontiguousarray(pixels), tall, wide)
    boxes: NDArray[np.uint8] = windows[tops, lefts].view(np.uint8).reshape(-1, tall, wide, colours)
    return boxes


def _differences(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 272 differences of grey, from -1 to 1, between the levels of the boxes."""
    differences: NDArray[np.float64] = levels[FIRST] - levels[SECOND]
    return differences


def _windows(pixels: NDArray[np.uint8], tall: int, wide: int) -> NDArray[np.void]:
    """Return a view (rows, columns, tall): the window that begins at each pixel, with each row as one item of bytes."""
    height, width, colours = pixels.shape
    down, right, _ = pixels.strides
    row = np.dtype((np.void, wide * colours))
    # Unlike as_strided, this has numpy check the bounds.
    return np.ndarray((height - tall + 1, width - wide + 1, tall), row, pixels, strides=(down, right, down))


@functools.lru_cache(maxsize=256)
def _starts(first: int, last: int, side: int) -> NDArray[np.intp]:
    """Return the starts of the nine boxes along an axis; their centres are evenly spaced within the crop."""
    step = (last - first) / (GRID + 1)
    return np.array([max(0, int(nth * step + first) - (side + 1) // 2) for nth in range(1, GRID + 1)])


def _limits(lines: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the first and last line of the crop: 5 % from each end, then the next line that is not flat.

    image-match searches for percentiles in a running sum of contrast. It takes them over the *entries* of that sum,
    so that only lines without contrast move them.
    """
    count = len(lines)
    first = math.floor((count - 1) * _CROP) + 1
    last = math.ceil((count - 1) * (1 - _CROP))
    crop = lines[first : last + 1]
    flat = _count_flat(crop)
    if flat == len(crop):
        return int(_CROP * count), int((1 - _CROP) * count)
    return first + flat, last - _count_flat(crop[::-1])


def _count_flat(lines: NDArray[np.uint8]) -> int:
    """Return how many of the first lines are flat."""
    if not len(lines) or not _is_flat(lines[0]):
        return 0
    for start in range(1, len(lines), _LINES):
        some = lines[start : start + _LINES]
        has_edges = (some[:, 1:] != some[:, :-1]).reshape(len(some), -1).any(axis=1)
        for line in np.flatnonzero(has_edges).tolist():
            if not _is_flat(some[line]):
                return start + line
    return len(lines)


def _is_flat(line: NDArray[np.uint8]) -> bool:
    """Return whether all pixels of a line have the same grey."""
    # Most lines of a photograph differ at their ends, which is checked in a fifth of the time.
    ends = line[:: max(1, len(line) - 1)].tolist()
    if _luma(*ends[0]) != _luma(*ends[-1]):
        return False
    grey = _grey(line)
    return bool((grey == grey[0]).all())


def _luma(red: int, green: int, blue: int) -> int:
    """Return an exact integer grey; where two of them differ, the rounded ones differ too."""
    return 2125 * red + 7154 * green + 721 * blue


def _means(boxes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean grey of each box from its exact sum of each colour."""
    pixels = math.prod(boxes.shape[1:3])
    sums = np.asarray(numkong.dots_packed(boxes.reshape(len(boxes), -1), _colour_masks(pixels)))
    means: NDArray[np.float64] = sums @ (_LUMA / (_WHITE * pixels))
    return means


@functools.lru_cache(maxsize=64)
def _colour_masks(pixels: int) -> numkong.PackedMatrix:
    """Return three rows for numkong; the product with one of them is the sum of a colour of so many pixels."""
    return numkong.dots_pack(np.tile(np.eye(len(_LUMA), dtype=np.uint8), pixels), dtype="uint8")


def _rounded_means(boxes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean grey of each box, equal to image-match's in every bit."""
    some = max(1, _AT_ONCE_PX // math.prod(boxes.shape[1:3]))
    return np.concatenate([_rounded(boxes[start : start + some]) for start in range(0, len(boxes), some)])


def _rounded(boxes: NDArray[np.uint8]) -> NDArray[np.float64]:
    number, tall, wide, _ = boxes.shape
    # numpy multiplies a matrix of one row with another routine than a taller one, and another rounding. An image one
    # pixel wide is a stack of one-row matrices in image-match, so it is one here too.
    grey = (_grey(boxes.reshape(number, tall * wide, -1)) if wide > 1 else _grey(boxes)).reshape(number, -1)
    run = max(1, _BUFFER // wide) * wide
    sums = [grey[:, start : start + run].sum(axis=1) for start in range(0, tall * wide, run)]
    means: NDArray[np.float64] = sum(sums[1:], start=sums[0]) / (tall * wide)
    return means


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return greys from 0 to 1, by the reciprocal and a matrix product: both determine the last bit."""
    colours = pixels.astype(np.float64)
    colours *= 1 / _WHITE
    grey: NDArray[np.float64] = colours @ _LUMA
    return grey


def _sorted_sizes(differences: NDArray[np.float64]) -> list[float]:
    """Return the sizes of the differences in ascending order."""
    sizes: list[float] = np.sort(np.abs(differences)).tolist()
    return sizes


def _is_close_call(sizes: list[float]) -> bool:
    """Return whether another order of summation could change the signature.

    The signature depends on the order of the sizes relative to the tolerance, to their median, and to 1.0.
    """
    start = bisect_left(sizes, _TOLERANCE - _MARGIN)
    if start == len(sizes):
        return False
    if sizes[start] < _TOLERANCE + _MARGIN or sizes[-1] > 1 - _MARGIN:
        return True
    low, high = _middle(start, len(sizes))
    # An even number has a median between two sizes; an odd one has a size as the median, between two others.
    around = sizes[low : high + 1] if low < high else sizes[max(start, low - 1) : high + 2]
    return any(after - before < _MARGIN for before, after in pairwise(around))


def _compare(differences: NDArray[np.float64], sizes: list[float]) -> Signature:
    """Return -2 to 2 for each difference of grey: 2 above the median of those beyond the tolerance, 1 below it."""
    start = bisect_left(sizes, _TOLERANCE)
    if start == len(sizes):
        return np.zeros(LENGTH, dtype=np.int8)
    low, high = _middle(start, len(sizes))
    # The median, rounded as numpy's percentile does.
    median = sizes[high] - (sizes[high] - sizes[low]) * 0.5
    # A size equal to the tolerance is beyond it, and one equal to the median is not above it.
    bounds = (-median, math.nextafter(-_TOLERANCE, 0), _TOLERANCE, math.nextafter(median, math.inf))
    values = (np.searchsorted(bounds, differences, side="right") - 2).astype(np.int8)
    # image-match overwrites differences with ranks, first the ones, then the twos. Where the upper half reaches 1.0
    # (black beside white), it mistakes the ranks 1 for differences, and ranks them again.
    if median <= 1.0 <= sizes[-1]:
        values = 2 * np.sign(values)
    return values


def _middle(start: int, end: int) -> tuple[int, int]:
    """Return the two middle positions between `start` and `end`; they are equal for an odd number."""
    return (start + end - 1) // 2, (start + end) // 2
