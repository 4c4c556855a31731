"""Nearest-neighbour scan: differing bits of all signatures, then exact distances of the few that are near."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numkong
import numpy as np
from numpy.typing import NDArray

from common.images.signature import distances, pair_distances
from common.store.sqlite.blocks import SCANNED_BITS, Bits, Block, Keys, Positions, Rows, pack, unpack
from common.store.sqlite.projection import ProjectedQueries

# Rows per call of numkong: 16 queries' results fit in a core's cache.
CHUNK = 16_384
# Pairs of a near row and a query, from which exact distances are computed. Each numpy call then handles many.
PENDING = 8_192
# Rows from which a bound is computed, for each one that is wanted.
SAMPLE = 4
# The largest number of differing bits at a distance d. 4 million pairs of photographs and altered photographs all lie
# below 520 d² + 65. The 8,416 pairs with d < 0.45 lie within 145 bits, and 0.2 % of the unrelated pairs within 180.
BITS_PER_SQUARE = 520
BITS_MARGIN = 75
BITS_LEAST = 180
# Projections take less time than bits if they have so many columns fewer than queries: the rest pays for the conversion
# of the rows. Beyond this distance many rows would pass.
PROJECTED_SAVES = 300
PROJECTED_WITHIN = 0.5
# Signatures unpacked at once.
PROJECTED_AT_ONCE = 8_192
# The share of pairs that pass in a block of photographs is a hundredth of this. Bits are faster in other blocks.
PASSING_MAX = 0.005
# Above the error of float64, below the difference of two distances.
ROUNDING = 1e-9
_NO_KEYS: Keys = np.zeros(0, np.int64)
_NO_DISTANCES: NDArray[np.float64] = np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """A block, and the ascending positions of its signatures that no longer exist."""

    block: Block
    dead: Positions

    def without(self, keys: Keys) -> "Live":
        """Return the block with the signatures of these images dead too; `keys` is ascending."""
        positions = self.block.positions(keys)
        return Live(self.block, np.union1d(self.dead, positions)) if len(positions) else self

    def part(self, first: int, end: int) -> "Live":
        """Return the signatures from `first` to before `end`."""
        begin, stop = np.searchsorted(self.dead, [first, end]) if len(self.dead) else (0, 0)
        return Live(self.block.part(first, end), self.dead[begin:stop] - first)

    def alive(self) -> Block:
        """Return the signatures that exist."""
        return self.block.take(np.delete(np.arange(len(self.block)), self.dead)) if len(self.dead) else self.block

    def exist(self, positions: Positions) -> NDArray[np.bool_]:
        """Return whether the signatures at these positions exist."""
        if not len(self.dead):
            return np.ones(len(positions), np.bool_)
        following = np.searchsorted(self.dead, positions)
        are_alive: NDArray[np.bool_] = self.dead[np.minimum(following, len(self.dead) - 1)] != positions
        return are_alive


def nearest(
    parts: Sequence[Live],
    queries: Rows,
    *,
    limit: int,
    among: Keys | None = None,
    max_distance: float | None = None,
) -> list[list[int]]:
    """Return for each query (n, 272) the keys of the `limit` nearest images, best first; none for a query of zeros.

    With `among`, ascending, only these images are searched. Images beyond `max_distance` are omitted.
    """
    featured = np.flatnonzero(queries.any(axis=1)).tolist()
    results: list[list[int]] = [[] for _ in queries]
    if featured and limit > 0:
        search = _Search(queries[featured], limit, max_distance)
        for part in parts:
            search.scan(part, among)
        for index, best in zip(featured, search.best, strict=True):
            results[index] = best.keys.tolist()
    return results


def bits_within(distance: float | None) -> int:
    """Return the number of differing bits that a pair at `distance` does not exceed."""
    if distance is None:
        return SCANNED_BITS
    return min(SCANNED_BITS, max(BITS_LEAST, int(BITS_PER_SQUARE * distance**2 + BITS_MARGIN)))


class _Search:
    """One scan for several queries."""

    def __init__(self, queries: Rows, limit: int, max_distance: float | None) -> None:
        bound = bits_within(max_distance)
        farthest = np.inf if max_distance is None else max_distance + ROUNDING
        self.best = [_Best(query, limit, bound, farthest) for query in queries]
        self._queries = queries
        # Few rows are so near, and nearly all of them are beyond `max_distance`.
        self._are_few_near = max_distance is not None and max_distance <= PROJECTED_WITHIN
        self._signs = pack(np.zeros(len(queries), np.int64), queries).signs
        self._packed = numkong.hammings_pack(_tensor(self._signs))
        self._bounds = np.full(len(queries), bound, np.uint32)
        self._farthest = np.full(len(queries), farthest)
        self._rows_at_once = max(1, CHUNK // max(1, len(queries) // 16))
        self._projected: ProjectedQueries | None = None
        if max_distance is not None and self._are_few_near and len(queries) > PROJECTED_SAVES:
            projected = ProjectedQueries(queries, max_distance)
            self._projected = projected if len(queries) - len(projected) > PROJECTED_SAVES else None

    def scan(self, part: Live, among: Keys | None) -> None:
        """Compare with all signatures of one block."""
        first = 0 if self._projected is None else self._scan_projected(self._projected, part, among)
        near: list[Positions] = []
        pending = 0
        for positions, signs in _chunks(part, among, rows=self._rows_at_once, first=first):
            differing = self._differing(signs)
            hits = np.flatnonzero(differing <= self._bounds)
            rows, queries = np.divmod(hits, len(self.best))
            near.append(np.stack([positions[rows], queries, differing.ravel()[hits]]))
            pending += len(hits)
            if pending > PENDING:
                self._measure(part, np.concatenate(near, axis=1))
                near, pending = [], 0
        if pending:
            self._measure(part, np.concatenate(near, axis=1))

    def _scan_projected(self, projected: ProjectedQueries, part: Live, among: Keys | None) -> int:
        """Compare with the signatures of a block by projections; return the number of signatures that were compared.

        It ends early in a block of which too many signatures pass.
        """
        compared = 0
        for positions, _ in _chunks(part, among, rows=PROJECTED_AT_ONCE):
            rows = unpack(part.block.take(positions))
            some, columns = projected.passing(rows)
            if len(some) > PASSING_MAX * len(rows) * len(projected):
                return compared
            if len(some):
                near, queries = projected.near(rows[some], columns)
                self._measure(part, np.stack([positions[some[near]], queries, np.zeros(len(near), np.int64)]))
            compared += len(positions)
        return compared

    def _differing(self, signs: Bits) -> NDArray[np.uint32]:
        """Return (rows, queries): the number of differing bits."""
        rows = _tensor(signs)
        if len(self.best) == 1:
            # For one query the batched kernel takes half as long again. numkong's stubs lack this type.
            out_dtype: Any = "uint32"
            return np.asarray(numkong.cdist(_tensor(self._signs), rows, "hamming", out_dtype=out_dtype)).T
        return np.asarray(numkong.hammings_packed(rows, self._packed))

    def _measure(self, part: Live, near: NDArray[np.int64]) -> None:
        """Offer each query the near rows (position, query, differing bits)."""
        positions, queries, differing = near[:, part.exist(near[0])]
        if self._are_few_near:
            self._keep_pairs(part.block.take(positions), queries)
            return
        for index, mine in _by_query(queries):
            best = self.best[index]
            best.offer(part.block, positions[mine], differing[mine])
            self._bounds[index] = best.bound

    def _keep_pairs(self, rows: Block, queries: NDArray[np.int64]) -> None:
        """Offer each row to the query beside it, after measuring all pairs at once: most queries then have none."""
        apart = pair_distances(self._queries[queries], unpack(rows))
        kept = np.flatnonzero(apart <= self._farthest[queries])
        for index, mine in _by_query(queries[kept]):
            best = self.best[index]
            best.keep(rows.keys[kept[mine]], apart[kept[mine]])
            self._bounds[index], self._farthest[index] = best.bound, best.farthest


class _Best:
    """The images nearest to one query so far, best first."""

    def __init__(self, query: Rows, limit: int, bound: int, farthest: float) -> None:
        self.keys: Keys = _NO_KEYS
        self.bound = bound
        self.farthest = farthest
        self._query = query
        self._limit = limit
        self._distances: NDArray[np.float64] = _NO_DISTANCES

    def offer(self, block: Block, positions: Positions, differing: NDArray[np.int64]) -> None:
        """Keep the nearest of the signatures at `positions`."""
        sample = SAMPLE * self._limit
        if len(positions) > sample:
            # The rows with the fewest differing bits determine a bound, which excludes most of the others.
            order = np.argpartition(differing, sample)
            self._measure(block, positions[order[:sample]])
            others = order[sample:]
            positions = positions[others[differing[others] <= self.bound]]
        self._measure(block, positions)

    def keep(self, keys: Keys, apart: NDArray[np.float64]) -> None:
        """Keep the nearest of the signatures of these images, at these distances."""
        keys, apart = np.concatenate([self.keys, keys]), np.concatenate([self._distances, apart])
        order = np.lexsort((keys, apart))
        # An image counts once, with the nearest of its signatures.
        first = np.sort(np.unique(keys[order], return_index=True)[1])[: self._limit]
        self.keys, self._distances = keys[order][first], apart[order][first]
        if len(self.keys) == self._limit:
            self.farthest = float(self._distances[-1])
            self.bound = min(self.bound, bits_within(self.farthest))

    def _measure(self, block: Block, positions: Positions) -> None:
        rows = block.take(positions)
        apart = distances(self._query, unpack(rows))
        near = apart <= self.farthest
        self.keep(rows.keys[near], apart[near])


def _by_query(queries: NDArray[np.int64]) -> Iterator[tuple[int, Positions]]:
    """Yield each query, and the positions where it is."""
    order = np.argsort(queries, kind="stable")
    indices, starts, counts = np.unique(queries[order], return_index=True, return_counts=True)
    for index, start, count in zip(indices.tolist(), starts, counts, strict=True):
        yield index, order[start : start + count]


def _chunks(part: Live, among: Keys | None, *, rows: int, first: int = 0) -> Iterator[tuple[Positions, Bits]]:
    """Yield positions and signs of the signatures to scan, without the `first` ones."""
    if among is None:
        for start in range(first, len(part.block), rows):
            signs = part.block.signs[start : start + rows]
            yield np.arange(start, start + len(signs)), signs
        return
    positions = part.block.positions(among)
    for start in range(first, len(positions), rows):
        chunk = positions[start : start + rows]
        yield chunk, part.block.signs[chunk]


def _tensor(bits: Bits) -> numkong.Tensor:
    """Return a view of rows of bits, a type that numpy lacks."""
    return numkong.from_pointer(bits.ctypes.data, bits.shape, "uint1", owner=bits)
