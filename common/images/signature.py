"""Pixels to signature, and the distance between two signatures.

The algorithm is that of Wong, Bern and Goldberg, "An image signature for any kind of image" (ICIP 2002). Every value
equals that of image-match 1.1.2. Grey levels are averaged in boxes around a 9 x 9 grid. For each pair of neighbouring
boxes a value states whether the first is much darker (-2), darker (-1), the same (0), lighter (1) or much lighter (2).
"""

import math
from typing import TypeAlias, TypeVar

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
# All boxes of a photograph of about 500 pixels a side fit in one batch, and in a core's cache.
_AT_ONCE_PX = 32_768

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
    levels = _levels(pixels)
    return _compare(levels[FIRST] - levels[SECOND])


def expand(signature: Signature) -> NDArray[np.int8]:
    """Return image-match's form: (648,), eight neighbours for each of 81 boxes, zero beyond the border."""
    values = np.zeros(GRID * GRID * len(_STEPS), dtype=np.int8)
    values[_FORTH] = signature
    values[_BACK] = -signature
    return values


def is_featureless(signature: Signature) -> bool:
    """Return whether a signature is all zeros: no search returns an image with it."""
    return not signature.any()


def distance(one: Signature, other: Signature) -> float:
    """Return 0.0 for equal signatures, 1.0 for opposite ones; with a featureless one always 1.0, never NaN."""
    return float(distances(one, other[np.newaxis])[0])


def distances(query: Signature, rows: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return the distance of `query` (272,) to each of `rows` (n, 272) as (n,), equal to image-match's in every bit."""
    # Sums of small integers are exact in float32, and BLAS computes them, unlike those of integer arrays.
    one, many = query.astype(np.float32), rows.astype(np.float32)
    # The 648 values contain each of the 272 twice: doubling the squares gives the same rounding of the roots.
    one_squared = 2 * float(one @ one)
    many_squared = 2 * np.einsum("ij,ij->i", many, many).astype(np.float64)
    apart_squared = one_squared + many_squared - 4 * (many @ one).astype(np.float64)
    norms = math.sqrt(one_squared) + np.sqrt(many_squared)
    featureless = norms == 0
    return np.where(featureless, 1.0, np.sqrt(apart_squared) / np.where(featureless, 1.0, norms))


def score(distance: _Distance) -> _Distance:
    """Return the similarity in percent, of one distance or an array: 100 for distance 0, and 0 for distance 1."""
    return (1.0 - distance) * 100.0


def _levels(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean grey from 0 to 1 in each of the 81 boxes, row by row.

    Only the boxes are converted to grey, a few rows at a time: a fifth of the image, in little memory.
    """
    height, width, _ = pixels.shape
    side = max(_SMALLEST_BOX_PX, int(0.5 + min(height, width) / _BOXES_ACROSS))
    tall, wide = min(side, height), min(side, width)
    tops = np.array(_starts(pixels, side))[:, np.newaxis]
    lefts = np.array(_starts(pixels.swapaxes(0, 1), side))
    windows = _windows(np.ascontiguousarray(pixels), tall, wide)
    some = max(1, _AT_ONCE_PX // (GRID * tall * wide))
    return np.concatenate([_means(windows[tops[row : row + some], lefts]) for row in range(0, GRID, some)])


def _windows(pixels: NDArray[np.uint8], tall: int, wide: int) -> NDArray[np.void]:
    """Return a view (rows, columns, tall): the window that begins at each pixel, with each row as one item of bytes."""
    height, width, colours = pixels.shape
    down, right, _ = pixels.strides
    row = np.dtype((np.void, wide * colours))
    # Unlike as_strided, this has numpy check the bounds.
    return np.ndarray((height - tall + 1, width - wide + 1, tall), row, pixels, strides=(down, right, down))


def _starts(lines: NDArray[np.uint8], side: int) -> list[int]:
    """Return the starts of the nine boxes along the first axis; their centres are evenly spaced within the crop."""
    first, last = _limits(lines)
    step = (last - first) / (GRID + 1)
    return [max(0, int(nth * step + first) - (side + 1) // 2) for nth in range(1, GRID + 1)]


def _limits(lines: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the first and last line of the crop: 5 % from each end, then the next line that is not flat.

    image-match searches for percentiles in a running sum of contrast. It takes them over the *entries* of that sum,
    so that only lines without contrast move them.
    """
    count = len(lines)
    first = math.floor((count - 1) * _CROP) + 1
    last = math.ceil((count - 1) * (1 - _CROP))
    while first <= last and _is_flat(lines[first]):
        first += 1
    while first <= last and _is_flat(lines[last]):
        last -= 1
    return (first, last) if first <= last else (int(_CROP * count), int((1 - _CROP) * count))


def _is_flat(line: NDArray[np.uint8]) -> bool:
    """Return whether all pixels of a line have the same grey."""
    # Most lines of a photograph differ at their ends, which is checked in a fifth of the time.
    if _luma(*line[0].tolist()) != _luma(*line[-1].tolist()):
        return False
    grey = _grey(line)
    return bool((grey == grey[0]).all())


def _luma(red: int, green: int, blue: int) -> int:
    """Return an exact integer grey; where two of them differ, the rounded ones differ too."""
    return 2125 * red + 7154 * green + 721 * blue


def _means(windows: NDArray[np.void]) -> NDArray[np.float64]:
    """Return the mean grey of each of `windows` (rows, columns, tall), as a flat array."""
    rows, columns, tall = windows.shape
    boxes = windows.view(np.uint8).reshape(rows * columns, -1, len(_LUMA))
    pixels = boxes.shape[1]
    wide = pixels // tall
    # numpy multiplies a matrix of one row with another routine than a taller one, and another rounding. An image one
    # pixel wide is a stack of one-row matrices in image-match, so it is one here too.
    grey = _grey(boxes) if wide > 1 else _grey(boxes[:, :, np.newaxis])[:, :, 0]
    run = max(1, _BUFFER // wide) * wide
    sums = [grey[:, start : start + run].sum(axis=1) for start in range(0, pixels, run)]
    means: NDArray[np.float64] = sum(sums[1:], start=sums[0]) / pixels
    return means


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return greys from 0 to 1, by the reciprocal and a matrix product: both determine the last bit."""
    colours = pixels.astype(np.float64)
    colours *= 1 / _WHITE
    grey: NDArray[np.float64] = colours @ _LUMA
    return grey


def _compare(differences: NDArray[np.float64]) -> Signature:
    """Return -2 to 2 for each difference of grey: 2 above the median of those beyond the tolerance, 1 below it."""
    sizes = np.abs(differences)
    kept = np.sort(sizes[sizes >= _TOLERANCE])
    if not kept.size:
        return np.zeros(LENGTH, dtype=np.int8)
    middle = _median(kept)
    ranks = (sizes >= _TOLERANCE).astype(np.int8) + (sizes > middle)
    # image-match overwrites differences with ranks, first the ones, then the twos. Where the upper half reaches 1.0
    # (black beside white), it mistakes the ranks 1 for differences, and ranks them again.
    if middle <= 1.0 <= kept[-1]:
        ranks[ranks == 1] = 2
    return (ranks * np.sign(differences)).astype(np.int8)


def _median(ordered: NDArray[np.float64]) -> float:
    """Return the median, rounded as numpy's percentile does."""
    low, high = float(ordered[(ordered.size - 1) // 2]), float(ordered[ordered.size // 2])
    return high - (high - low) * 0.5
