"""The sixteen orientations of a signature: turned, mirrored, inverted, without looking at pixels again.

Each is one permutation of the 272 values with a sign for each, because turning a picture only moves the boxes that a
value compares. Against the signature of really turned pixels it is a near match, not always an equal one: rounding
may shift a box by a pixel.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from common.pictures.signature import FIRST, GRID, LENGTH, SECOND, Signature

_TURNED = ("original", "rotated_90", "rotated_180", "rotated_270")
_MIRRORED = ("mirrored", "mirrored_rotated_90", "mirrored_rotated_180", "mirrored_rotated_270")
_INVERTED = ("inverted", *(f"inverted_{name}" for name in (*_TURNED[1:], *_MIRRORED)))

ORIENTATIONS: tuple[str, ...] = (*_TURNED, *_MIRRORED, *_INVERTED)
"""What to do to a query so that it looks like the stored picture.

First it is mirrored, left to right, then rotated clockwise by that many degrees; inverted is a negative, black for
white. `ORIENTATIONS[i + 8]` is `ORIENTATIONS[i]`, inverted.
"""

UPRIGHT = len(_TURNED) + len(_MIRRORED)
"""How many of the orientations, the first ones, are not inverted."""


def _turned_grids() -> Iterator[NDArray[np.intp]]:
    """Yield, in the order of ORIENTATIONS, which box of the query lies in each place once the query is turned."""
    grid = np.arange(GRID * GRID).reshape(GRID, GRID)
    for start in (grid, np.fliplr(grid)):
        for quarters in range(4):
            yield np.rot90(start, -quarters).ravel()


def _moves() -> tuple[NDArray[np.intp], NDArray[np.int8]]:
    """Return (8, 272) twice: which value of the query comes to each place, and whether the pair comes reversed."""
    # Where each pair of boxes stands among the values, from 1; negative for the pair the other way round.
    place = np.zeros((GRID * GRID, GRID * GRID), dtype=np.intp)
    place[FIRST, SECOND] = np.arange(1, LENGTH + 1)
    place[SECOND, FIRST] = -place[FIRST, SECOND]
    moves = np.array([place[grid[FIRST], grid[SECOND]] for grid in _turned_grids()])
    return np.abs(moves) - 1, np.sign(moves).astype(np.int8)


_SOURCE, _SIGN = _moves()


def turn(signature: Signature) -> NDArray[np.int8]:
    """Return (16, 272): nearly the signature that the query has in each of ORIENTATIONS; the first is its own."""
    upright = signature[_SOURCE] * _SIGN
    return np.concatenate([upright, -upright])
