"""Pixels to signature, and the distance between two signatures.

After Goldberg et al., "An image signature for any kind of image" (ICIP 2002), value for value as image-match 1.1.2
computes it: grey levels are averaged in boxes around a 9 x 9 grid, and a signature says of each pair of neighbouring
boxes whether the first is much darker (-2), darker (-1), the same (0), lighter (1) or much lighter (2).
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
# numpy adds a box up through a buffer of this many values; another order of adding changes the last bit.
_BUFFER = 8192
# All boxes of a photograph of some 500 pixels in one go, and still within a core's cache.
_AT_ONCE_PX = 32_768

# A box's neighbours as (rows down, columns right), in image-match's order: each one's opposite stands mirrored in it.
_STEPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def _pairs() -> NDArray[np.intp]:
    """Return (272, 3): a box, the neighbour it is compared with, and the place of that step in `_STEPS`.

    Boxes are numbered row by row. Only steps to the right and down are taken, so that no pair comes twice.
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
# Where each value stands among the 648, and where its negative does: at the other box, for the opposite step.
_FORTH = FIRST * len(_STEPS) + _STEP
_BACK = SECOND * len(_STEPS) + len(_STEPS) - 1 - _STEP


def sign(pixels: NDArray[np.uint8]) -> Signature:
    """Return the signature of RGB `pixels` (height, width, 3), whatever their size.

    All zeros stand for a picture without features. Under about 20 pixels a side a signature is mostly noise.
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
    """Say whether there is nothing in it to compare: such a picture is never found."""
    return not signature.any()


def distance(one: Signature, other: Signature) -> float:
    """Return 0.0 for equal signatures, 1.0 for opposite ones; with a featureless one always 1.0, never NaN."""
    return float(distances(one, other[np.newaxis])[0])


def distances(query: Signature, rows: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return the distance of `query` (272,) to each of `rows` (n, 272) as (n,), equal to image-match's in every bit."""
    # Sums of small whole numbers are exact in float32, and go through BLAS, which integers do not.
    one, many = query.astype(np.float32), rows.astype(np.float32)
    # The 648 values hold each of the 272 twice: doubling the squares keeps the rounding of the roots as well.
    one_squared = 2 * float(one @ one)
    many_squared = 2 * np.einsum("ij,ij->i", many, many).astype(np.float64)
    apart_squared = one_squared + many_squared - 4 * (many @ one).astype(np.float64)
    norms = math.sqrt(one_squared) + np.sqrt(many_squared)
    featureless = norms == 0
    return np.where(featureless, 1.0, np.sqrt(apart_squared) / np.where(featureless, 1.0, norms))


def score(distance: _Distance) -> _Distance:
    """Return the likeness in percent, of one or of many: 100.0 for distance 0.0, 0.0 for distance 1.0."""
    return (1.0 - distance) * 100.0


def _levels(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean grey from 0 to 1 in each of the 81 boxes, row by row.

    Only the boxes are turned to grey, a few rows of them at a time: a fifth of the picture, in little memory.
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
    """Return a view (rows, columns, tall): the window that begins at each pixel, each row of it one item of bytes."""
    height, width, colours = pixels.shape
    down, right, _ = pixels.strides
    row = np.dtype((np.void, wide * colours))
    # Unlike as_strided, this has numpy check the bounds.
    return np.ndarray((height - tall + 1, width - wide + 1, tall), row, pixels, strides=(down, right, down))


def _starts(lines: NDArray[np.uint8], side: int) -> list[int]:
    """Return where along the first axis the nine boxes begin: centred on points evenly spread within the crop."""
    first, last = _limits(lines)
    step = (last - first) / (GRID + 1)
    return [max(0, int(place * step + first) - (side + 1) // 2) for place in range(1, GRID + 1)]


def _limits(lines: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the first and last line of the crop: 5 % off each end, then on to the next line that is not flat.

    image-match seeks percentiles in a running sum of contrast, but takes them over its *entries*, so that only lines
    which add nothing move them.
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
    """Say whether all pixels of a line have one grey."""
    # Most lines of a photograph tell it by their ends, and at a fifth of the price.
    if _luma(*line[0].tolist()) != _luma(*line[-1].tolist()):
        return False
    grey = _grey(line)
    return bool((grey == grey[0]).all())


def _luma(red: int, green: int, blue: int) -> int:
    """Return a grey that is exact; where it differs, the rounded ones do as well."""
    return 2125 * red + 7154 * green + 721 * blue


def _means(windows: NDArray[np.void]) -> NDArray[np.float64]:
    """Return the mean grey of each of `windows` (rows, columns, tall), one after another."""
    rows, columns, tall = windows.shape
    boxes = windows.view(np.uint8).reshape(rows * columns, -1, len(_LUMA))
    pixels = boxes.shape[1]
    wide = pixels // tall
    # numpy multiplies a matrix of one row by another routine than any taller one, and with another rounding; a
    # picture one pixel wide is a pile of such matrices and has to stay one.
    grey = _grey(boxes) if wide > 1 else _grey(boxes[:, :, np.newaxis])[:, :, 0]
    run = max(1, _BUFFER // wide) * wide
    sums = [grey[:, start : start + run].sum(axis=1) for start in range(0, pixels, run)]
    means: NDArray[np.float64] = sum(sums[1:], start=sums[0]) / pixels
    return means


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return greys from 0 to 1, multiplied by the reciprocal and as a matrix product: both decide the last bit."""
    colours = pixels.astype(np.float64)
    colours *= 1 / _WHITE
    grey: NDArray[np.float64] = colours @ _LUMA
    return grey


def _compare(differences: NDArray[np.float64]) -> Signature:
    """Return -2 to 2 for each difference of grey: above the median of those that count is 2, the others are 1."""
    sizes = np.abs(differences)
    kept = np.sort(sizes[sizes >= _TOLERANCE])
    if not kept.size:
        return np.zeros(LENGTH, dtype=np.int8)
    middle = _median(kept)
    ranks = (sizes >= _TOLERANCE).astype(np.int8) + (sizes > middle)
    # image-match ranks in place, first the ones, then the twos: where the upper half reaches 1.0, black beside
    # white, it takes the ranks 1 just written for differences, and ranks them again.
    if middle <= 1.0 <= kept[-1]:
        ranks[ranks == 1] = 2
    return (ranks * np.sign(differences)).astype(np.int8)


def _median(ordered: NDArray[np.float64]) -> float:
    """Return the median, rounded as numpy's percentile does."""
    low, high = float(ordered[(ordered.size - 1) // 2]), float(ordered[ordered.size // 2])
    return high - (high - low) * 0.5
