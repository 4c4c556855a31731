"""The sixteen orientations of a signature, rotated, mirrored and inverted, computed without pixels.

Each is a permutation of the 272 values with a sign for each, because rotating an image only moves the boxes that a
value compares. The signature of rotated pixels is nearly the same, but not always equal: rounding may shift a box by a
pixel.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from common.images.signature import FIRST, GRID, LENGTH, SECOND, Signature

_TURNED = ("original", "rotated_90", "rotated_180", "rotated_270")
_MIRRORED = ("mirrored", "mirrored_rotated_90", "mirrored_rotated_180", "mirrored_rotated_270")
_INVERTED = ("inverted", *(f"inverted_{name}" for name in (*_TURNED[1:], *_MIRRORED)))

ORIENTATIONS: tuple[str, ...] = (*_TURNED, *_MIRRORED, *_INVERTED)
"""The operations that turn a query into the stored image.

The query is first mirrored, left to right, then rotated clockwise by the degrees in the name. An inverted image is a
negative: black and white are exchanged. `ORIENTATIONS[i + 8]` is `ORIENTATIONS[i]`, inverted.
"""

UPRIGHT = len(_TURNED) + len(_MIRRORED)
"""Number of orientations that are not inverted; they are the first."""


def _turned_grids() -> Iterator[NDArray[np.intp]]:
    """Yield, in the order of ORIENTATIONS, the box of the query that is at each position of the turned grid."""
    grid = np.arange(GRID * GRID).reshape(GRID, GRID)
    for start in (grid, np.fliplr(grid)):
        for quarters in range(4):
            yield np.rot90(start, -quarters).ravel()


def _moves() -> tuple[NDArray[np.intp], NDArray[np.int8]]:
    """Return (8, 272) twice: the index in the query of each value, and its sign: -1 where the pair is reversed."""
    # The position of each pair of boxes among the values, from 1; negative for the reversed pair.
    position = np.zeros((GRID * GRID, GRID * GRID), dtype=np.intp)
    position[FIRST, SECOND] = np.arange(1, LENGTH + 1)
    position[SECOND, FIRST] = -position[FIRST, SECOND]
    moves = np.array([position[grid[FIRST], grid[SECOND]] for grid in _turned_grids()])
    return np.abs(moves) - 1, np.sign(moves).astype(np.int8)


_SOURCE, _SIGN = _moves()


def turn(signature: Signature) -> NDArray[np.int8]:
    """Return (16, 272): approximately the signature of the query in each of ORIENTATIONS; the first is its own."""
    upright = signature[_SOURCE] * _SIGN
    return np.concatenate([upright, -upright])
