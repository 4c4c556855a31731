"""Many queries at once: the pairs of a query and a signature that may be near, by products in 80 of 272 dimensions.

A signature has the differences between neighbouring boxes of a grid. So 80 dimensions, the differences of a free level
at each box, have nine tenths of a photograph's signature. For the rest of a pair's product the lengths give a bound
(Cauchy and Schwarz). So no pair within the distance is missed, and few pairs of unrelated photographs pass.

Half of the dimensions are the same after a rotation by 180 degrees, and the others change their sign. With e and o the
products in each half, |e| + |o| is the largest product of a signature with the query, with the rotated query, and with
both inverted. So a column of products stands for four of the sixteen orientations.
"""

import functools
from collections import defaultdict

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
HALF = (GRID * GRID - 1) // 2
_ROTATED = ORIENTATIONS.index("rotated_180")

_Floats = NDArray[np.float32]


class ProjectedQueries:
    """Queries (n, 272) without a row of zeros, and the largest distance of a near signature.

    The column of a query has its product and those of the query inverted, rotated, and both.
    """

    def __init__(self, queries: Rows, max_distance: float) -> None:
        self._max_distance = max_distance
        self._members: list[list[list[int]]] = []
        columns: dict[bytes, tuple[int, int]] = {}
        rows: list[tuple[Rows, Rows]] = []
        for index, query in enumerate(queries):
            if query.tobytes() not in columns:
                rotated = turn(query)[_ROTATED]
                for member, row in enumerate((query, -query, rotated, -rotated)):
                    columns.setdefault(row.tobytes(), (len(rows), member))
                rows.append((query, rotated))
                self._members.append([[], [], [], []])
            column, member = columns[query.tobytes()]
            self._members[column][member].append(index)
        self._rows = np.array(rows)
        lengths, projected, rest = project(self._rows[:, 0])
        padding = -len(rows) % WORD
        self._even, self._odd = (
            np.ascontiguousarray(np.pad(half, ((0, padding), (0, 0))).T) for half in np.split(projected, 2, axis=1)
        )
        near = 1 - max_distance**2
        bound = np.array([near + 0 * lengths, near * lengths**2, -2 * max_distance**2 * lengths, -2 * rest]) / 2
        bound[1] -= ROUNDING
        self._bound = np.pad(bound, ((0, 0), (0, padding))).astype(np.float32)
        self._bound[1, len(rows) :] = UNREACHED

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
        products = projected[:, :HALF] @ self._even
        odd = projected[:, HALF:] @ self._odd
        np.abs(products, out=products)
        np.abs(odd, out=odd)
        products += odd
        passing = (products >= np.matmul(lengths, self._bound, out=odd)).ravel()
        words = np.flatnonzero(passing.view(np.uint64))
        positions = (words[:, np.newaxis] * WORD + np.arange(WORD)).ravel()
        are_passing: Positions = positions[passing[positions]]
        return are_passing

    def near(self, rows: Rows, columns: Positions) -> tuple[Positions, Positions]:
        """Return the indices of `rows` and of queries that are near, of the pairs of a row and a column."""
        one = rows.astype(np.float32)
        other, rotated = self._rows[columns].transpose(1, 0, 2).astype(np.float32)
        squares = [np.einsum("ij,ij->i", each, each).astype(np.float64) for each in (one, other)]
        products = [np.einsum("ij,ij->i", one, each).astype(np.float64) for each in (other, rotated)]
        farthest = (self._max_distance + DISTANCE_ROUNDING) * (np.sqrt(squares[0]) + np.sqrt(squares[1]))
        queries_of: defaultdict[int, list[int]] = defaultdict(list)
        for member, product in enumerate((products[0], -products[0], products[1], -products[1])):
            for pair in np.flatnonzero(squares[0] + squares[1] - 2 * product <= farthest**2).tolist():
                queries_of[pair] += self._members[columns[pair]][member]
        pairs = [(pair, query) for pair, queries in queries_of.items() for query in queries]
        indices, queries = np.array(pairs, np.intp).reshape(-1, 2).T
        return indices, queries


def project(rows: Rows) -> tuple[_Floats, _Floats, _Floats]:
    """Return for each row its length, its projection (n, 80), even dimensions first, and the length of the rest."""
    floats = rows.astype(np.float32)
    squares = np.einsum("ij,ij->i", floats, floats)
    projected = floats @ _basis()
    rest = np.maximum(squares - np.einsum("ij,ij->i", projected, projected), 0)
    return np.sqrt(squares), projected, np.sqrt(rest)


@functools.cache
def _basis() -> _Floats:
    """Return (272, 80): orthonormal columns that span the differences of all levels of the grid's boxes.

    A rotation by 180 degrees keeps the first half, and changes the sign of the second.
    """
    differences = np.zeros((LENGTH, GRID * GRID))
    values = np.arange(LENGTH)
    differences[values, FIRST] = -1
    differences[values, SECOND] = 1
    rotated = differences[:, ::-1]
    halves = [
        np.linalg.svd(part, full_matrices=False)[0][:, :HALF] for part in (differences + rotated, differences - rotated)
    ]
    return np.concatenate(halves, axis=1).astype(np.float32)
