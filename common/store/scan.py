"""Exact nearest-neighbour scan over signatures held in memory."""

from dataclasses import dataclass
from typing import TypeAlias

import numkong
import numpy as np
from numpy.typing import NDArray

from common.signature import LENGTH

# Values from -2 to 2 fit in four bits; a row is padded to whole 64-byte lines. Over 100,000 rows numkong's kernel then
# takes 0.7 ms (unpadded 1.0, eight bits 1.5, eight bits unpadded 3.2).
ROW_BYTES = -(-LENGTH // 128) * 64
# Rows a block: one query's scores of a block stay in the processor's cache, and the last block is quick to pack anew.
BLOCK = 8192
# Scores are first computed in float32; what lies this close above the bound is looked at again in float64.
SLACK = 1 + 2e-6

Rows: TypeAlias = NDArray[np.int8]
Nibbles: TypeAlias = NDArray[np.uint8]
Owners: TypeAlias = NDArray[np.int64]
Scores: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Up to BLOCK rows in numkong's order; `squares` and `norms` are NaN where a row was forgotten."""

    packed: numkong.PackedMatrix
    owners: Owners
    squares: NDArray[np.float32]
    norms: NDArray[np.float32]


class Scan:
    """Signatures, each owned by a record; a record may own several.

    One thread at a time may append and forget. Any number may search meanwhile: rows are never changed in place, so a
    search sees each row whole, and at worst one that was forgotten after it began.
    """

    def __init__(self) -> None:
        self._blocks: tuple[_Block, ...] = ()
        # The last block's rows as they came: it is packed anew whenever it grows.
        self._tail: Nibbles = np.zeros((0, ROW_BYTES), np.uint8)
        self._place = np.full(BLOCK, -1, np.int32)
        self._most_owned = 1
        self.rows = 0
        self.forgotten = 0

    @property
    def wasteful(self) -> bool:
        """Say whether so much was forgotten that it pays to begin anew."""
        return self.forgotten > max(BLOCK, self.rows // 2)

    @property
    def nbytes(self) -> int:
        """Return how much memory the rows and all that belongs to them take."""
        blocks = sum(b.packed.nbytes + b.owners.nbytes + b.squares.nbytes + b.norms.nbytes for b in self._blocks)
        return int(blocks + self._tail.nbytes + self._place.nbytes)

    def append(self, owners: Owners, rows: Rows) -> None:
        """Add rows (n, 272); those of one owner stand together, and none of them is all zeros."""
        if not len(owners):
            return
        self._remember(owners)
        full, last = self._split_tail()
        squares = _squares(rows)
        nibbles = np.concatenate([self._tail, _nibbles(rows)])
        if last is not None:
            owners = np.concatenate([last.owners, owners])
            squares = np.concatenate([last.squares, squares])
        cuts = [slice(start, start + BLOCK) for start in range(0, len(nibbles), BLOCK)]
        self._blocks = full + tuple(_block(nibbles[cut], owners[cut], squares[cut]) for cut in cuts)
        self._tail = nibbles[cuts[-1]].copy() if len(nibbles) % BLOCK else self._tail[:0]

    def forget(self, owners: Owners) -> None:
        """Leave out what these own from now on."""
        known = owners[owners < len(self._place)]
        for owner in known[self._place[known] >= 0].tolist():
            row = int(self._place[owner])
            self._place[owner] = -1
            while row < self.rows and self._owner(row) == owner:
                self._blocks[row // BLOCK].squares[row % BLOCK] = np.nan
                self._blocks[row // BLOCK].norms[row % BLOCK] = np.nan
                self.forgotten += 1
                row += 1

    def nearest(self, queries: Rows, *, limit: int) -> list[list[int]]:
        """Return for each query (n, 272) the `limit` owners nearest to it, best first; a query of zeros has none."""
        bases, origins = _bases(queries)
        squares = _squares(bases)
        tensor = _tensor(_nibbles(bases))
        found = [_Nearest(limit * self._most_owned) for _ in queries]
        for block in self._blocks:
            dots = np.asarray(numkong.dots_packed(tensor, block.packed))
            for best, (base, sign) in zip(found, origins, strict=True):
                if squares[base]:
                    best.offer(block, dots[base], sign=sign, square=float(squares[base]))
        return [list(dict.fromkeys(best.owners.tolist()))[:limit] for best in found]

    def _split_tail(self) -> tuple[tuple[_Block, ...], _Block | None]:
        return (self._blocks[:-1], self._blocks[-1]) if len(self._tail) else (self._blocks, None)

    def _owner(self, row: int) -> int:
        return int(self._blocks[row // BLOCK].owners[row % BLOCK])

    def _remember(self, owners: Owners) -> None:
        """Note where each owner's rows begin."""
        size = len(self._place)
        while size <= owners.max():
            size *= 2
        self._place = np.pad(self._place, (0, size - len(self._place)), constant_values=-1)
        unique, first, counts = np.unique(owners, return_index=True, return_counts=True)
        self._place[unique] = self.rows + first
        self._most_owned = max(self._most_owned, int(counts.max()))
        self.rows += len(owners)


class _Nearest:
    """The best rows for one query, among those that were offered."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bound = np.inf
        self._scores: Scores = np.zeros(0)
        self._owners: Owners = np.zeros(0, np.int64)

    @property
    def owners(self) -> Owners:
        return self._owners[np.argsort(self._scores, kind="stable")]

    def offer(self, block: _Block, dots: NDArray[np.int32], *, sign: int, square: float) -> None:
        """Take the rows of `block` that are among the best so far; a row's score is its squared distance."""
        near = self._near(block, dots, sign=sign, square=square)
        if near.size:
            squares = block.squares[near].astype(np.float64)
            exact = (squares + square - 2 * sign * dots[near]) / (np.sqrt(squares) + square**0.5) ** 2
            self._keep(np.concatenate([self._scores, exact]), np.concatenate([self._owners, block.owners[near]]))

    def _near(self, block: _Block, dots: NDArray[np.int32], *, sign: int, square: float) -> NDArray[np.intp]:
        """Return the few rows whose exact score is worth computing."""
        rough = dots.astype(np.float32)
        rough *= -2 * sign
        rough += block.squares
        rough += square
        sums = block.norms + np.float32(square**0.5)
        sums *= sums
        rough /= sums
        near: NDArray[np.intp] = np.flatnonzero(rough <= self._bound)
        if near.size <= self._limit:
            return near
        scores = rough[near]
        bound = float(np.partition(scores, self._limit - 1)[self._limit - 1]) * SLACK
        return near[scores <= bound]

    def _keep(self, scores: Scores, owners: Owners) -> None:
        if len(scores) >= self._limit:
            best = np.argpartition(scores, self._limit - 1)[: self._limit]
            scores, owners = scores[best], owners[best]
            self._bound = float(scores.max()) * SLACK
        self._scores, self._owners = scores, owners


def _block(nibbles: Nibbles, owners: Owners, squares: NDArray[np.float32]) -> _Block:
    return _Block(numkong.dots_pack(_tensor(nibbles)), owners.copy(), squares.copy(), np.sqrt(squares))


def _squares(rows: Rows) -> NDArray[np.float32]:
    squares: NDArray[np.float32] = np.einsum("ij,ij->i", rows, rows, dtype=np.float32)
    return squares


def _nibbles(rows: Rows) -> Nibbles:
    """Return rows of ROW_BYTES, two values a byte."""
    halves = rows.view(np.uint8) & 0xF
    return np.pad(halves[:, ::2] | halves[:, 1::2] << 4, ((0, 0), (0, ROW_BYTES - LENGTH // 2)))


def _tensor(nibbles: Nibbles) -> numkong.Tensor:
    """Return a view that tells numkong what numpy has no type for."""
    return numkong.from_pointer(nibbles.ctypes.data, nibbles.shape, "int4", owner=nibbles)


def _bases(queries: Rows) -> tuple[Rows, list[tuple[int, int]]]:
    """Return the rows that need a dot product, and for each query which of them is its own, with what sign.

    Half of the 16 orientations are the other half negated: 8 products serve all.

    >>> bases, origins = _bases(np.array([[1, 2], [0, 1], [-1, -2]], np.int8))
    >>> bases.tolist(), origins
    ([[1, 2], [0, 1]], [(0, 1), (1, 1), (0, -1)])
    """
    places: dict[bytes, tuple[int, int]] = {}
    bases: list[Rows] = []
    origins: list[tuple[int, int]] = []
    for query in queries:
        if query.tobytes() not in places:
            places[(-query).tobytes()] = (len(bases), -1)
            places[query.tobytes()] = (len(bases), 1)
            bases.append(query)
        origins.append(places[query.tobytes()])
    return np.array(bases, np.int8).reshape(len(bases), queries.shape[1]), origins
