"""Many queries at once: the pairs of a query and a signature that may be near, by products in 80 of 272 dimensions.

A signature has the differences between neighbouring boxes of a grid. So 80 dimensions, the differences of a free level
at each box, have nine tenths of a photograph's signature. For the rest of a pair's product the lengths give a bound
(Cauchy and Schwarz). So no pair within the distance is missed, and few pairs of unrelated photographs pass.

The dimensions are in four groups. Mirroring an image left to right, or upside down, keeps all values of a group or
changes all their signs. With a, b, c and d the products in each group, the products with the mirrored queries are sums
of a, b, c and d with other signs. The largest of their sizes has a simple form. So a column of products stands for
eight of the sixteen orientations: four that only mirror, and the same inverted.
"""

import functools
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.images.orientations import ORIENTATIONS, turn
from common.images.signature import FIRST, GRID, LENGTH, SECOND
from common.store.sqlite.blocks import Positions, Rows

# Products computed at once, which fit in a core's cache.
PRODUCTS = 1 << 17
MIN_ROWS = 64
# Above the rounding of float32 in a product, which is at most 4 * 272.
ROUNDING = 0.05
# Above the error of float64, below the difference of two distances.
DISTANCE_ROUNDING = 1e-9
# Above every product: no signature passes in a column that fills up the last word.
UNREACHED = 1e9
# Truth values are searched in words of eight.
WORD = 8
# The groups by the sign after mirroring left to right, and upside down, with their dimensions. A grid of 9 by 9 has
# 5 by 5 free levels that are the same on both sides, less one: equal levels have no differences.
_SAME, _OTHER = (GRID + 1) // 2, GRID // 2
GROUPS: Mapping[tuple[int, int], int] = {
    (1, 1): _SAME * _SAME - 1,
    (1, -1): _SAME * _OTHER,
    (-1, 1): _OTHER * _SAME,
    (-1, -1): _OTHER * _OTHER,
}
# The orientations that only exchange left and right, or top and bottom.
_FLIPS = [ORIENTATIONS.index(name) for name in ("original", "mirrored", "mirrored_rotated_180", "rotated_180")]

_Floats = NDArray[np.float32]


class ProjectedQueries:
    """Queries (n, 272) without a row of zeros, and the largest distance of a near signature.

    The column of a query has the largest of its products in eight orientations, without their signs.
    """

    def __init__(self, queries: Rows, max_distance: float) -> None:
        self._max_distance = max_distance
        # For each column the indices of the queries that are its first row in each of the eight orientations.
        self._members: list[list[list[int]]] = []
        columns: dict[bytes, tuple[int, int]] = {}
        flipped: list[Rows] = []
        for index, query in enumerate(queries):
            if query.tobytes() not in columns:
                flips = turn(query)[_FLIPS]
                for member, row in enumerate((*flips, *-flips)):
                    columns.setdefault(row.tobytes(), (len(flipped), member))
                flipped.append(flips)
                self._members.append([[] for _ in (*flips, *flips)])
            column, member = columns[query.tobytes()]
            self._members[column][member].append(index)
        self._flipped = np.array(flipped)
        lengths, projected, rest = project(self._flipped[:, 0])
        padding = -len(flipped) % WORD
        self._groups = [np.ascontiguousarray(np.pad(group, ((0, padding), (0, 0))).T) for group in _grouped(projected)]
        near = 1 - max_distance**2
        bound = np.array([near + 0 * lengths, near * lengths**2, -2 * max_distance**2 * lengths, -2 * rest]) / 2
        bound[1] -= ROUNDING
        self._bound = np.pad(bound, ((0, 0), (0, padding))).astype(np.float32)
        self._bound[1, len(flipped) :] = UNREACHED

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self._members)

    def passing(self, rows: Rows) -> tuple[Positions, Positions]:
        """Return the indices of the rows and columns of all pairs that may be near."""
        lengths, projected, rest = project(rows)
        lengths_of_rows = np.stack([lengths**2, np.ones_like(lengths), lengths, rest], axis=1)
        at_once = max(MIN_ROWS, PRODUCTS // self._bound.shape[1])
        parts = [
            self._passing(projected[start : start + at_once], lengths_of_rows[start : start + at_once])
            + start * self._bound.shape[1]
            for start in range(0, len(rows), at_once)
        ]
        some, columns = np.divmod(np.concatenate(parts), self._bound.shape[1])
        return some, columns

    def _passing(self, projected: _Floats, lengths: _Floats) -> Positions:
        """Return the positions in the matrix of products."""
        one, two, three, four = (part @ group for part, group in zip(_grouped(projected), self._groups, strict=True))
        largest = np.maximum(np.abs(one + two) + np.abs(three + four), np.abs(one - two) + np.abs(three - four))
        passing = (largest >= np.matmul(lengths, self._bound, out=one)).ravel()
        words = np.flatnonzero(passing.view(np.uint64))
        positions = (words[:, np.newaxis] * WORD + np.arange(WORD)).ravel()
        are_passing: Positions = positions[passing[positions]]
        return are_passing

    def near(self, rows: Rows, columns: Positions) -> tuple[Positions, Positions]:
        """Return the indices of `rows` and of queries that are near, of the pairs of a row and a column."""
        one, others = rows.astype(np.float32), self._flipped[columns].astype(np.float32)
        squares = [np.einsum("ij,ij->i", each, each).astype(np.float64) for each in (one, others[:, 0])]
        products = np.einsum("ij,ikj->ki", one, others).astype(np.float64)
        farthest = (self._max_distance + DISTANCE_ROUNDING) * (np.sqrt(squares[0]) + np.sqrt(squares[1]))
        least = (squares[0] + squares[1] - farthest**2) / 2
        queries_of: defaultdict[int, list[int]] = defaultdict(list)
        for member, product in enumerate((*products, *-products)):
            for pair in np.flatnonzero(product >= least).tolist():
                queries_of[pair] += self._members[columns[pair]][member]
        pairs = [(pair, query) for pair, queries in queries_of.items() for query in queries]
        indices, queries = np.array(pairs, np.intp).reshape(-1, 2).T
        return indices, queries


def project(rows: Rows) -> tuple[_Floats, _Floats, _Floats]:
    """Return for each row its length, its projection (n, 80), and the length of the rest."""
    floats = rows.astype(np.float32)
    squares = np.einsum("ij,ij->i", floats, floats)
    projected = floats @ _basis()
    rest = np.maximum(squares - np.einsum("ij,ij->i", projected, projected), 0)
    return np.sqrt(squares), projected, np.sqrt(rest)


@functools.cache
def _basis() -> _Floats:
    """Return (272, 80): orthonormal columns that span the differences of all levels of the grid's boxes.

    Each group has the levels that are the same, or the negative, when they are mirrored: in both directions, upside
    down only, left to right only, or in none.
    """
    differences = np.zeros((LENGTH, GRID, GRID))
    values = np.arange(LENGTH)
    differences[values, *np.divmod(FIRST, GRID)] = -1
    differences[values, *np.divmod(SECOND, GRID)] = 1
    groups = []
    for (across, down), size in GROUPS.items():
        levels = differences + across * differences[:, :, ::-1]
        levels = levels + down * levels[:, ::-1]
        groups.append(np.linalg.svd(levels.reshape(LENGTH, -1), full_matrices=False)[0][:, :size])
    return np.concatenate(groups, axis=1).astype(np.float32)


def _grouped(projected: _Floats) -> list[_Floats]:
    """Return the dimensions of each group."""
    return np.split(projected, np.cumsum([*GROUPS.values()])[:-1], axis=1)
