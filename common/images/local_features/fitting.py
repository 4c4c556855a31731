"""Affine maps by least squares, from the pairs that agree with a proposal, and the pairs that agree with the map."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.images.local_features.pairs import MIN_AGREEING, TOLERANCE, Pairs, Proposal

# The scale of a feature may differ from the map's by this natural logarithm: a factor of two.
_SCALE_APART = 0.7
# The angle of a feature may differ from the map's by this, in radians.
_TURN_APART = 0.6
# A map that squeezes an image more explains any features by chance.
_MAX_SQUEEZE = 3.0
# Agreeing features must reach over this share of the smaller image's longer side.
_MIN_REACH = 0.15
# With fewer pairs than this, an affine map would fit noise: a similarity must do.
_MIN_AFFINE = 6
_AFFINE_RIDGE = 0.02
# Side of the cells in which features count once, as a share of the stored image's longer side.
_CELL = 1 / 64


@dataclass(frozen=True, slots=True)
class Transform:
    """An affine map from a pixel of the stored image to one of the query, both at full size.

    x' = m11 x + m12 y + m13 and y' = m21 x + m22 y + m23.
    """

    m11: float
    m12: float
    m13: float
    m21: float
    m22: float
    m23: float

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The matrix (2, 3) of the map."""
        return np.array([(self.m11, self.m12, self.m13), (self.m21, self.m22, self.m23)])

    @property
    def determinant(self) -> float:
        """The area of an image of a unit square: negative for a mirror image."""
        return self.m11 * self.m22 - self.m12 * self.m21

    def inverse(self) -> "Transform":
        """Return the map from a pixel of the query to one of the stored image."""
        m11, m12, m13, m21, m22, m23 = np.linalg.inv(np.vstack([self.matrix, (0, 0, 1)]))[:2].ravel().tolist()
        return Transform(m11, m12, m13, m21, m22, m23)


@dataclass(frozen=True, slots=True)
class Fit:
    """A map, and the number of distinct features that agree with it."""

    transform: Transform
    agreeing: int


class Fitter:
    """Fits maps to proposals. It computes what all need once."""

    def __init__(self, pairs: Pairs, *, query_side: int) -> None:
        self._pairs = pairs
        self._query_side = query_side
        self._cos, self._sin = np.cos(pairs.target.angle), np.sin(pairs.target.angle)
        self._to_cos, self._to_sin = np.cos(pairs.query.angle), np.sin(pairs.query.angle)

    def refine(self, proposal: Proposal) -> Fit | None:
        """Fit a map to the pairs that agree, with a decreasing tolerance; None for an implausible map."""
        rows = proposal.agreeing
        group = slice(proposal.first, proposal.end)
        side = float(self._pairs.labels.side[proposal.first])
        for step in (2, 1, 1):
            if len(rows) < MIN_AGREEING:
                return None
            transform = self._fit(rows, is_mirrored=proposal.group % 2 == 1)
            scale = math.sqrt(abs(transform.determinant))
            if not scale > 0:
                return None
            near = self._are_near(transform, group, step * TOLERANCE * side * scale)
            rows = proposal.first + np.flatnonzero(near & self._are_alike(transform, group, scale))
        agreeing = self._distinct(rows, side * _CELL, scale)
        if agreeing < MIN_AGREEING or not self._is_plausible(transform, rows, side):
            return None
        return Fit(transform, agreeing)

    def _fit(self, rows: NDArray[np.intp], *, is_mirrored: bool) -> Transform:
        """Return the affine map by least squares, drawn towards a similarity."""
        pairs, count = self._pairs, len(rows)
        columns = [pairs.target.x[rows], pairs.target.y[rows], pairs.query.x[rows], pairs.query.y[rows]]
        mean_x, mean_y, mean_to_x, mean_to_y = means = [float(column.sum()) / count for column in columns]
        centred = np.stack([column - mean for column, mean in zip(columns, means, strict=True)])
        (xx, xy, x_to_x, x_to_y), (_, yy, y_to_x, y_to_y) = (centred[:2] @ centred.T).tolist()
        spread = xx + yy
        m11 = m12 = m21 = m22 = 0.0
        if spread > 0:
            sign = -1 if is_mirrored else 1
            along, across = (x_to_x + sign * y_to_y) / spread, (x_to_y - sign * y_to_x) / spread
            m11, m12, m21, m22 = along, -sign * across, across, sign * along
            if count >= _MIN_AFFINE:
                ridge = _AFFINE_RIDGE * spread
                m11, m12 = _solve(xx + ridge, xy, yy + ridge, x_to_x + ridge * m11, y_to_x + ridge * m12)
                m21, m22 = _solve(xx + ridge, xy, yy + ridge, x_to_y + ridge * m21, y_to_y + ridge * m22)
        return Transform(
            m11, m12, mean_to_x - m11 * mean_x - m12 * mean_y, m21, m22, mean_to_y - m21 * mean_x - m22 * mean_y
        )

    def _are_near(self, map_: Transform, group: slice, limit: float) -> NDArray[np.bool_]:
        """Return whether the map brings a target's feature near to the query's."""
        pairs = self._pairs
        x, y = pairs.target.x[group], pairs.target.y[group]
        missed_x = map_.m11 * x + map_.m12 * y + (map_.m13 - pairs.query.x[group])
        missed_y = map_.m21 * x + map_.m22 * y + (map_.m23 - pairs.query.y[group])
        near: NDArray[np.bool_] = missed_x * missed_x + missed_y * missed_y < limit * limit
        return near

    def _are_alike(self, map_: Transform, group: slice, scale: float) -> NDArray[np.bool_]:
        """Return whether the map brings the size and the angle of a target's feature near those of the query's."""
        cos, sin = self._cos[group], self._sin[group]
        across, down = map_.m11 * cos + map_.m12 * sin, map_.m21 * cos + map_.m22 * sin
        toward = across * self._to_cos[group] + down * self._to_sin[group]
        scale_apart = np.abs(self._pairs.scale[group] - math.log(scale))
        alike: NDArray[np.bool_] = (scale_apart < _SCALE_APART) & (
            toward > math.cos(_TURN_APART) * np.hypot(across, down)
        )
        return alike

    def _distinct(self, rows: NDArray[np.intp], cell: float, scale: float) -> int:
        """Return the number of features that differ in position, in both images, and in word.

        Fences, text and tiles repeat one feature many times: without this, they agree with one another.
        """
        pairs = self._pairs
        cells = np.floor_divide([pairs.target.x[rows], pairs.target.y[rows]], cell).astype(np.int64)
        to_cells = np.floor_divide([pairs.query.x[rows], pairs.query.y[rows]], cell * scale).astype(np.int64)
        keys = (cells[0] << 32 | cells[1], to_cells[0] << 32 | to_cells[1], pairs.labels.word[rows])
        return min(len(set(key.tolist())) for key in keys)

    def _is_plausible(self, map_: Transform, rows: NDArray[np.intp], side: float) -> bool:
        """Return whether a map neither squeezes the image flat nor rests on a small spot."""
        # The sum and the product of the largest and the smallest stretch, which are the singular values.
        product = abs(map_.determinant)
        squares = map_.m11**2 + map_.m12**2 + map_.m21**2 + map_.m22**2
        if squares > (_MAX_SQUEEZE + 1 / _MAX_SQUEEZE) * product:
            return False
        pairs = self._pairs
        reach = max(np.ptp(pairs.target.x[rows]), np.ptp(pairs.target.y[rows])) / side
        to_reach = max(np.ptp(pairs.query.x[rows]), np.ptp(pairs.query.y[rows])) / self._query_side
        return bool(max(reach, to_reach) > _MIN_REACH)


def _solve(one: float, both: float, other: float, right: float, right_other: float) -> tuple[float, float]:
    """Return the solution of two equations with the symmetric matrix `one`, `both`; `both`, `other`."""
    determinant = one * other - both * both
    return (other * right - both * right_other) / determinant, (one * right_other - both * right) / determinant
