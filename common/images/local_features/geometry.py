"""Geometric verification: whether the features that a query shares with a stored image lie alike in both.

Each pair of features with a common word proposes a similarity (shift, rotation, scale, perhaps a mirror image), as a
vote in the sense of Lowe (2004). The two proposals with most agreement are refined to affine maps by least squares.
The score measures how improbable the agreement of the best map is between unrelated images.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.images.local_features.features import Keypoints, LocalFeatures
from common.images.local_features.words import LookupWords

# More pairs of a candidate are not considered: those of frequent words come last.
_MAX_PAIRS = 200
_MIN_AGREEING = 3
# How far a feature may lie from its mapped position, as a share of the stored image's longer side.
_TOLERANCE = 0.02
# Tolerances of a proposal from one pair: its scale and rotation are known roughly, so that errors grow with distance.
_PROPOSAL_DRIFT = 0.2
_PROPOSAL_APART = 0.6
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
# Upper estimate of the probability that a feature of an unrelated image agrees with a map. By area 0.0017 of positions
# do, by scale two fifths and by angle a fifth: 0.00014. Features of real images are less evenly spread.
_CHANCE = 0.00025
# The surprise of 8, a probability of 1e-8, has the score 55: the common cutoff.
_HALF_SURPRISE = 8 * 45 / 55


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

    def inverse(self) -> "Transform":
        """Return the map from a pixel of the query to one of the stored image."""
        m11, m12, m13, m21, m22, m23 = np.linalg.inv(np.vstack([self.matrix, (0, 0, 1)]))[:2].ravel().tolist()
        return Transform(m11, m12, m13, m21, m22, m23)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The agreement of a stored image with a query.

    `score` is from 0 to 100 on the scale of signatures: 55 is the cutoff. The overlaps are shares of area in percent:
    of the query that shows the stored image, and of the stored image that the query shows. `mirrored` is whether the
    query shows it as in a mirror. `agreeing` counts the distinct features that confirm the map.
    """

    score: float
    query_overlap_percent: float
    target_overlap_percent: float
    transform: Transform
    mirrored: bool
    agreeing: int


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Pairs of features with a common word: row i of `query` and of `target` (m,) is a pair; `mirrored` (m,)."""

    query: Keypoints
    target: Keypoints
    query_feature: NDArray[np.intp]
    word: NDArray[np.uint32]
    mirrored: NDArray[np.bool_]


class QueryFeatures:
    """The features of a query and the words that they may have, prepared for the verification of many candidates.

    `words` (n,) are those that a store looks up: the likeliest of each feature, the strongest features first.

    `lookup` are the words of `keypoints`. `width` and `height` are the query's full size in pixels.
    """

    def __init__(self, keypoints: Keypoints, lookup: LookupWords, *, width: int, height: int) -> None:
        self.words = lookup.own
        order = np.argsort(lookup.word, kind="stable")
        self.keypoints = keypoints
        self.lookup = lookup
        self._sorted = lookup.word[order]
        self._feature = lookup.feature[order]
        self._mirrored = lookup.mirrored[order]
        self.width = width
        self.height = height

    def verify(self, target: LocalFeatures) -> Verification | None:
        """Return the agreement of a stored image, or None where nothing agrees."""
        pairs = self._pairs(target)
        if len(pairs.word) < _MIN_AGREEING:
            return None
        best = _best_map(pairs, query_side=max(self.width, self.height), target_side=max(target.width, target.height))
        if best is None:
            return None
        matched = len(np.unique(pairs.query_feature))
        query_share, target_share = _overlaps(best.matrix, (self.width, self.height), (target.width, target.height))
        return Verification(
            score=score(surprise(best.agreeing, matched)),
            query_overlap_percent=100 * query_share,
            target_overlap_percent=100 * target_share,
            transform=Transform(*best.matrix.ravel().tolist()),
            mirrored=bool(np.linalg.det(best.matrix[:, :2]) < 0),
            agreeing=best.agreeing,
        )

    def _pairs(self, target: LocalFeatures) -> _Pairs:
        """Return the pairs of features with a common word."""
        first = np.searchsorted(self._sorted, target.words, side="left")
        counts = np.searchsorted(self._sorted, target.words, side="right") - first
        of_target = np.repeat(np.arange(len(counts)), counts)
        # The positions in the query's sorted words: each range, one after the other.
        nth = np.arange(len(of_target)) - np.repeat(np.cumsum(counts) - counts, counts)
        of_query = np.repeat(first, counts) + nth
        if len(of_target) > _MAX_PAIRS:
            rare = np.argsort(np.repeat(counts, counts), kind="stable")[:_MAX_PAIRS]
            of_target, of_query = of_target[rare], of_query[rare]
        feature = self._feature[of_query]
        return _Pairs(
            query=self.keypoints.take(feature),
            target=target.keypoints.take(of_target),
            query_feature=feature,
            word=target.words[of_target],
            mirrored=self._mirrored[of_query] != target.mirrored[of_target],
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Map:
    """An affine `matrix` (2, 3) from the target to the query; `agreeing` counts the distinct features that agree."""

    matrix: NDArray[np.float64]
    agreeing: int


def score(surprise: float) -> float:
    """Return the score from 0 to 100 of a surprise: 55 for 8."""
    return 100 * surprise / (surprise + _HALF_SURPRISE)


def surprise(agreeing: int, matched: int) -> float:
    """Return -log10 of the expected number of sets of `agreeing` among `matched` features that agree by chance.

    Two of a set determine the map; each further one agrees by chance with the probability _CHANCE.
    """
    if agreeing < _MIN_AGREEING:
        return 0.0
    matched = max(agreeing, matched)
    sets = math.lgamma(matched + 1) - math.lgamma(agreeing + 1) - math.lgamma(matched - agreeing + 1)
    return max(0.0, -(sets + (agreeing - 2) * math.log(_CHANCE)) / math.log(10))


def _best_map(pairs: _Pairs, *, query_side: int, target_side: int) -> _Map | None:
    """Return the map that most pairs agree with, or None."""
    best: _Map | None = None
    for mirrored in (False, True):
        rows = np.flatnonzero(pairs.mirrored == mirrored)
        if len(rows) < max(_MIN_AGREEING, best.agreeing if best else 0):
            continue
        query, target, words = pairs.query.take(rows), pairs.target.take(rows), pairs.word[rows]
        votes = _agreement(query, target, target_side, mirrored=mirrored)
        counts = votes.sum(axis=1)
        for proposal in np.argsort(-counts, kind="stable")[:2]:
            if counts[proposal] < max(_MIN_AGREEING, best.agreeing if best else 0):
                break
            refined = _refine(query, target, words, votes[proposal], (query_side, target_side))
            if refined and (best is None or refined.agreeing > best.agreeing):
                best = refined
    return best


def _agreement(query: Keypoints, target: Keypoints, target_side: int, *, mirrored: bool) -> NDArray[np.bool_]:
    """Return (m, m): whether pair j agrees with the similarity that pair i proposes.

    Positions are complex numbers here: a similarity is z' = a z + b, or a conj(z) + b in the mirror.
    """
    to, start = query.x + 1j * query.y, target.x + 1j * target.y
    turn = query.angle - target.angle
    if mirrored:
        start, turn = start.conj(), query.angle + target.angle
    scale = query.size / target.size
    factor = scale * np.exp(1j * turn)
    residual = np.abs(np.outer(factor, start) + (to - factor * start)[:, np.newaxis] - to)
    distance = np.abs(start[:, np.newaxis] - start) * scale[:, np.newaxis]
    limit = _PROPOSAL_DRIFT * distance + _TOLERANCE * target_side * scale[:, np.newaxis]
    # The logarithm of a quotient of factors contains the difference of scale and that of rotation.
    apart = np.abs(np.log(factor[:, np.newaxis] / factor))
    agrees: NDArray[np.bool_] = (residual < limit) & (apart < _PROPOSAL_APART)
    return agrees


def _refine(
    query: Keypoints, target: Keypoints, words: NDArray[np.uint32], agrees: NDArray[np.bool_], sides: tuple[int, int]
) -> _Map | None:
    """Fit an affine map to the pairs that agree, with a decreasing tolerance; None for an implausible map."""
    query_side, target_side = sides
    for step in (2, 1, 1):
        if agrees.sum() < _MIN_AGREEING:
            return None
        matrix = _fit(target.take(agrees), query.take(agrees))
        scale = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
        if not scale > 0:
            return None
        x, y = matrix @ np.stack([target.x, target.y, np.ones_like(target.x)])
        near = np.hypot(x - query.x, y - query.y) < step * _TOLERANCE * target_side * scale
        agrees = near & _are_alike(matrix, scale, query, target)
    query, target = query.take(agrees), target.take(agrees)
    agreeing = _distinct(query, target, words[agrees], target_side * _CELL, scale)
    if agreeing < _MIN_AGREEING or not _is_plausible(matrix, query, target, query_side, target_side):
        return None
    return _Map(matrix, agreeing)


def _are_alike(matrix: NDArray[np.float64], scale: float, query: Keypoints, target: Keypoints) -> NDArray[np.bool_]:
    """Return (m,): whether the map brings the size and the angle of a target's feature near those of the query's."""
    across, down = matrix[:, :2] @ np.stack([np.cos(target.angle), np.sin(target.angle)])
    turn = np.arctan2(down, across) - query.angle
    scale_apart = np.abs(np.log(query.size / (scale * target.size)))
    alike: NDArray[np.bool_] = (scale_apart < _SCALE_APART) & (np.cos(turn) > math.cos(_TURN_APART))
    return alike


def _fit(start: Keypoints, to: Keypoints) -> NDArray[np.float64]:
    """Return the affine matrix (2, 3) from `start` to `to` by least squares, drawn towards a similarity."""
    one = np.stack([start.x, start.y], axis=1)
    other = np.stack([to.x, to.y], axis=1)
    one_mean, other_mean = one.mean(axis=0), other.mean(axis=0)
    one, other = one - one_mean, other - other_mean
    spread = float((one * one).sum())
    products = one.T @ other
    linear = np.zeros((2, 2))
    if spread > 0:
        similarities = [_similarity(products, spread, sign) for sign in (1, -1)]
        linear = min(similarities, key=lambda matrix: float(((one @ matrix.T - other) ** 2).sum()))
    if len(one) >= _MIN_AFFINE and spread > 0:
        ridge = _AFFINE_RIDGE * spread
        linear = np.linalg.solve(one.T @ one + ridge * np.eye(2), products + ridge * linear.T).T
    return np.column_stack([linear, other_mean - linear @ one_mean])


def _similarity(products: NDArray[np.float64], spread: float, sign: int) -> NDArray[np.float64]:
    """Return the best rotation and scale (2, 2); with `sign` -1 also mirrored."""
    along = (products[0, 0] + sign * products[1, 1]) / spread
    across = (products[0, 1] - sign * products[1, 0]) / spread
    return np.array([[along, -sign * across], [across, sign * along]])


def _distinct(query: Keypoints, target: Keypoints, words: NDArray[np.uint32], cell: float, scale: float) -> int:
    """Return the number of features that differ in position, in both images, and in word.

    Fences, text and tiles repeat one feature many times: without this, they agree with one another.
    """
    in_target = (target.x // cell).astype(np.int64) << 32 | (target.y // cell).astype(np.int64)
    in_query = (query.x // (cell * scale)).astype(np.int64) << 32 | (query.y // (cell * scale)).astype(np.int64)
    return min(len(np.unique(in_target)), len(np.unique(in_query)), len(np.unique(words)))


def _is_plausible(
    matrix: NDArray[np.float64], query: Keypoints, target: Keypoints, query_side: int, target_side: int
) -> bool:
    """Return whether a map neither squeezes the image flat nor rests on a small spot."""
    largest, smallest = np.linalg.svd(matrix[:, :2], compute_uv=False)
    if largest > _MAX_SQUEEZE * smallest:
        return False
    reach_target = max(np.ptp(target.x), np.ptp(target.y)) / target_side
    reach_query = max(np.ptp(query.x), np.ptp(query.y)) / query_side
    return bool(max(reach_target, reach_query) > _MIN_REACH)


def _overlaps(
    matrix: NDArray[np.float64], query_size: tuple[int, int], target_size: tuple[int, int]
) -> tuple[float, float]:
    """Return the share of the query that shows the target, and of the target that the query shows, by area."""
    width, height = target_size
    corners = np.array([(0, 0, 1), (width, 0, 1), (width, height, 1), (0, height, 1)], dtype=np.float64)
    shown = _clip(corners @ matrix.T, *query_size)
    area = _area(shown)
    scale = abs(float(np.linalg.det(matrix[:, :2])))
    share_of_target = area / (scale * width * height)
    return min(1.0, area / (query_size[0] * query_size[1])), min(1.0, share_of_target)


def _clip(polygon: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Return the part of a convex `polygon` (n, 2) inside the rectangle from the origin (Sutherland and Hodgman)."""
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        kept: list[NDArray[np.float64]] = []
        for one, other in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            inside, next_inside = sign * (one[axis] - limit), sign * (other[axis] - limit)
            if inside >= 0:
                kept.append(one)
            if (inside >= 0) != (next_inside >= 0):
                kept.append(one + (other - one) * inside / (inside - next_inside))
        if not kept:
            return np.zeros((0, 2))
        polygon = np.array(kept)
    return polygon


def _area(polygon: NDArray[np.float64]) -> float:
    """Return the area of a polygon (n, 2)."""
    x, y = polygon[:, 0], polygon[:, 1]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2 if len(polygon) else 0.0
