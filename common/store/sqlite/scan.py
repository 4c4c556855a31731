"""Exact nearest-neighbour scan over signatures in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numkong
import numpy as np
from numpy.typing import NDArray

from common.images.signature import LENGTH

# Values from -2 to 2 fit in four bits; a row is padded to whole 64-byte lines. Over 100,000 rows numkong's kernel then
# takes 0.7 ms (unpadded 1.0, eight bits 1.5, eight bits unpadded 3.2).
ROW_BYTES = -(-LENGTH // 128) * 64
# Rows per block: one query's products with a block fit in the processor's cache, and repacking the last block is fast.
BLOCK = 16_384
# Rows per limit from which a search computes its first bound.
SAMPLE = 16
# |a|² of every possible signature, and its root. No stored signature has |a|² = 0: it marks a row as forgotten.
SQUARES = np.arange(4 * LENGTH + 1, dtype=np.int32)
ROOTS = np.sqrt(SQUARES)
FORGOTTEN = 0
NEVER = np.int32(2**31 - 1)
# Far above the error of float64, far below the distance of two integers.
ROUNDING = 1e-6

Rows: TypeAlias = NDArray[np.int8]
Nibbles: TypeAlias = NDArray[np.uint8]
Owners: TypeAlias = NDArray[np.int64]
Squares: TypeAlias = NDArray[np.uint16]
Dots: TypeAlias = NDArray[np.int32]
_KeptRows: TypeAlias = tuple[Owners, Squares, Dots]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Up to BLOCK rows in numkong's order, with their owners, and their |a|² or FORGOTTEN."""

    packed: numkong.PackedMatrix
    owners: Owners
    squares: Squares


class Scan:
    """Signatures, each owned by a record; a record may own several.

    One thread at a time may append and forget, while any number search. Rows are never changed in place, so a search
    reads complete rows, at worst also one that was forgotten after it began.
    """

    def __init__(self) -> None:
        self._blocks: tuple[_Block, ...] = ()
        # The last block's rows before packing: it is packed again whenever it grows.
        self._tail: Nibbles = np.zeros((0, ROW_BYTES), np.uint8)
        self._first_row = np.full(BLOCK, -1, np.int32)
        self._most_owned = 1
        self.rows = 0
        self.forgotten = 0

    @property
    def is_wasteful(self) -> bool:
        """Return whether so many rows are forgotten that a reload is cheaper."""
        return self.forgotten > max(BLOCK, self.rows // 2)

    @property
    def nbytes(self) -> int:
        """Return the memory of the rows and their tables, in bytes."""
        blocks = sum(b.packed.nbytes + b.owners.nbytes + b.squares.nbytes for b in self._blocks)
        return int(blocks + self._tail.nbytes + self._first_row.nbytes)

    def append(self, owners: Owners, rows: Rows) -> None:
        """Add rows (n, 272); the rows of one owner are adjacent, and no row is all zeros."""
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
        """Exclude the rows of these owners from searches."""
        known = owners[owners < len(self._first_row)]
        for owner in known[self._first_row[known] >= 0].tolist():
            row = int(self._first_row[owner])
            self._first_row[owner] = -1
            while row < self.rows and self._owner(row) == owner:
                self._blocks[row // BLOCK].squares[row % BLOCK] = FORGOTTEN
                self.forgotten += 1
                row += 1

    def nearest(self, queries: Rows, *, limit: int, among: Owners | None = None) -> list[list[int]]:
        """Return for each query (n, 272) the `limit` nearest owners, best first; none for a query of zeros.

        With `among`, only these owners are searched.
        """
        bases, origins = _bases(queries)
        squares = _squares(bases).tolist()
        tensor = _tensor(_nibbles(bases))
        nearest = [_Nearest(squares[base], sign=sign, limit=limit * self._most_owned) for base, sign in origins]
        for block in self._blocks if among is None else self._only(among):
            dots = np.asarray(numkong.dots_packed(tensor, block.packed))
            for best, (base, _) in zip(nearest, origins, strict=True):
                if squares[base]:
                    best.offer(block, dots[base])
        return [list(dict.fromkeys(best.owners()))[:limit] for best in nearest]

    def _only(self, owners: Owners) -> Iterator[_Block]:
        """Yield the blocks with the rows of all other owners forgotten."""
        # Read in this order: `append` extends _first_row before the blocks.
        blocks, size = self._blocks, len(self._first_row)
        counts = np.zeros(size, np.bool_)
        counts[owners[owners < size]] = True
        for block in blocks:
            yield replace(block, squares=np.where(counts[block.owners], block.squares, FORGOTTEN).astype(np.uint16))

    def _split_tail(self) -> tuple[tuple[_Block, ...], _Block | None]:
        return (self._blocks[:-1], self._blocks[-1]) if len(self._tail) else (self._blocks, None)

    def _owner(self, row: int) -> int:
        return int(self._blocks[row // BLOCK].owners[row % BLOCK])

    def _remember(self, owners: Owners) -> None:
        """Record the first row of each owner."""
        size = len(self._first_row)
        while size <= owners.max():
            size *= 2
        self._first_row = np.pad(self._first_row, (0, size - len(self._first_row)), constant_values=-1)
        unique, first, counts = np.unique(owners, return_index=True, return_counts=True)
        self._first_row[unique] = self.rows + first
        self._most_owned = max(self._most_owned, int(counts.max()))
        self.rows += len(owners)


class _Nearest:
    """The best rows for one query so far; the score of a row is its squared distance."""

    def __init__(self, square: float, *, sign: int, limit: int) -> None:
        self._square = square
        self._sign = sign
        self._limit = limit
        # The least dot product that a row needs, by its |a|²: first any, except for forgotten rows.
        self._least = np.where(SQUARES == FORGOTTEN, NEVER, -NEVER)
        self._lowest = -NEVER
        self._bounded = False
        self._kept: list[_KeptRows] = []

    def offer(self, block: _Block, dots: Dots) -> None:
        """Keep the few rows of `block` that may be among the best."""
        dots = dots if self._sign > 0 else -dots
        if not self._bounded:
            # A few rows determine a first bound; without it, a whole block would be kept and sorted.
            part = slice(SAMPLE * self._limit)
            self._tighten(np.sort(self._scores(block.squares[part], dots[part])))
        # The lowest bound first: the lookup of each row's bound takes as long as the rest of this method.
        near = np.flatnonzero(dots >= self._lowest)
        squares = block.squares[near]
        near = near[dots[near] >= self._least[squares]]
        self._kept.append((block.owners[near], block.squares[near], dots[near]))
        if near.size > self._limit:
            self._kept = [self._best()]
            self._tighten(self._scores(*self._kept[0][1:]))

    def owners(self) -> list[int]:
        """Return the owners of the best rows, best first."""
        best: list[int] = self._best()[0].tolist() if self._kept else []
        return best

    def _best(self) -> _KeptRows:
        """Return the best of the kept rows, in order."""
        owners, squares, dots = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        order = np.argsort(self._scores(squares, dots), kind="stable")[: self._limit]
        return owners[order], squares[order], dots[order]

    def _scores(self, squares: Squares, dots: Dots) -> NDArray[np.float64]:
        """Return exact scores, computed in integers up to the roots; those of forgotten rows are infinite."""
        scores = (SQUARES[squares] + self._square - 2 * dots) / (ROOTS[squares] + self._square**0.5) ** 2
        return np.where(squares == FORGOTTEN, np.inf, scores)

    def _tighten(self, scores: NDArray[np.float64]) -> None:
        """Use the limit-th of these sorted scores as a bound, and derive the least dot product for each |a|²."""
        if scores.size < self._limit or not np.isfinite(scores[self._limit - 1]):
            return
        bound = scores[self._limit - 1]
        # score <= bound, solved for the dot product, depends only on the |a|² of a row.
        least = (1 - bound) / 2 * (SQUARES + self._square) - bound * ROOTS * self._square**0.5
        self._least = np.ceil(least - ROUNDING).astype(np.int32)
        self._least[FORGOTTEN] = NEVER
        self._lowest = self._least.min()
        self._bounded = True


def _block(nibbles: Nibbles, owners: Owners, squares: Squares) -> _Block:
    return _Block(numkong.dots_pack(_tensor(nibbles)), owners.copy(), squares.copy())


def _squares(rows: Rows) -> Squares:
    squares: Squares = np.einsum("ij,ij->i", rows, rows, dtype=np.uint16, casting="unsafe")
    return squares


def _nibbles(rows: Rows) -> Nibbles:
    """Return rows of ROW_BYTES, with two values per byte."""
    halves = rows.view(np.uint8) & 0xF
    return np.pad(halves[:, ::2] | halves[:, 1::2] << 4, ((0, 0), (0, ROW_BYTES - LENGTH // 2)))


def _tensor(nibbles: Nibbles) -> numkong.Tensor:
    """Return a view with numkong's type int4, which numpy lacks."""
    return numkong.from_pointer(nibbles.ctypes.data, nibbles.shape, "int4", owner=nibbles)


def _bases(queries: Rows) -> tuple[Rows, list[tuple[int, int]]]:
    """Return the rows that need a dot product, and for each query the index of its row and its sign.

    Half of the 16 orientations are the other half negated: 8 products suffice.

    >>> bases, origins = _bases(np.array([[1, 2], [0, 1], [-1, -2]], np.int8))
    >>> bases.tolist(), origins
    ([[1, 2], [0, 1]], [(0, 1), (1, 1), (0, -1)])
    """
    signed: dict[bytes, tuple[int, int]] = {}
    bases: list[Rows] = []
    origins: list[tuple[int, int]] = []
    for query in queries:
        if query.tobytes() not in signed:
            signed[(-query).tobytes()] = (len(bases), -1)
            signed[query.tobytes()] = (len(bases), 1)
            bases.append(query)
        origins.append(signed[query.tobytes()])
    return np.array(bases, np.int8).reshape(len(bases), queries.shape[1]), origins
