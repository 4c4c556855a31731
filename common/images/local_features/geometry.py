"""Geometric verification: whether the features that a query shares with a stored image lie alike in both.

Each pair of features with a common word proposes a similarity (`pairs`). The two proposals with most agreement are
refined to affine maps by least squares (`fitting`). The score measures how improbable the agreement of the best map is
between unrelated images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.images.local_features.features import Keypoints, LocalFeatures
from common.images.local_features.fitting import Fit, Fitter, Transform
from common.images.local_features.pairs import MIN_AGREEING, PairLabels, Pairs, proposals
from common.images.local_features.words import WORDS, LookupWords

__all__ = ["QueryFeatures", "Transform", "Verification", "score", "surprise"]

# More pairs of a candidate are not considered: those of frequent words come last.
_MAX_PAIRS = 200
# Upper estimate of the probability that a feature of an unrelated image agrees with a map. By area 0.0017 of positions
# do, by scale two fifths and by angle a fifth: 0.00014. Features of real images are less evenly spread.
_CHANCE = 0.00025
# The surprise of 8, a probability of 1e-8, has the score 55: the common cutoff.
_HALF_SURPRISE = 8 * 45 / 55


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
        return self.verify_all([target])[0]

    def verify_all(self, targets: Sequence[LocalFeatures], *, least_score: float = 0.0) -> list[Verification | None]:
        """Return the agreement of each stored image; None where nothing agrees, or too little for `least_score`.

        Many are verified in a fraction of the time that each takes by itself.
        """
        if not targets:
            return []
        pairs = self._pairs(targets)
        matched = _matched(pairs, len(targets))
        least = np.array([least_agreeing(count, least_score) for count in matched.tolist()])
        fitter = Fitter(pairs, query_side=max(self.width, self.height))
        best: list[Fit | None] = [None] * len(targets)
        for proposal in proposals(pairs, least=np.repeat(least, 2)):
            candidate = proposal.group // 2
            existing = best[candidate]
            if existing is not None and len(proposal.agreeing) < existing.agreeing:
                continue
            refined = fitter.refine(proposal)
            if refined is not None and (existing is None or refined.agreeing > existing.agreeing):
                best[candidate] = refined
        return [
            self._verification(fit, target, count, least_score) if fit else None
            for fit, target, count in zip(best, targets, matched.tolist(), strict=True)
        ]

    def _verification(self, fit: Fit, target: LocalFeatures, matched: int, least_score: float) -> Verification | None:
        agreement = score(surprise(fit.agreeing, matched))
        if agreement < least_score:
            return None
        size = self.width, self.height
        query_share, target_share = _overlaps(fit.transform.matrix, size, (target.width, target.height))
        return Verification(
            score=agreement,
            query_overlap_percent=100 * query_share,
            target_overlap_percent=100 * target_share,
            transform=fit.transform,
            mirrored=fit.transform.determinant < 0,
            agreeing=fit.agreeing,
        )

    def _pairs(self, targets: Sequence[LocalFeatures]) -> Pairs:
        """Return the pairs of features with a common word."""
        words = np.concatenate([target.words for target in targets])
        known = np.zeros(WORDS, np.bool_)
        known[self._sorted] = True
        common = np.flatnonzero(known[words])
        words = words[common]
        first = np.searchsorted(self._sorted, words, side="left")
        counts = np.searchsorted(self._sorted, words, side="right") - first
        candidates = np.repeat(np.arange(len(targets)), [len(target.words) for target in targets])
        of_common = np.repeat(np.arange(len(common)), counts)
        # The positions in the query's sorted words: each range, one after the other.
        of_query = np.arange(len(of_common)) + np.repeat(first - np.cumsum(counts) + counts, counts)
        rarest = _rarest(candidates[common][of_common], counts[of_common], len(targets))
        of_common, of_query = of_common[rarest], of_query[rarest]
        of_target = common[of_common]
        feature = self._feature[of_query]
        mirrored = np.concatenate([target.mirrored for target in targets])[of_target]
        sides = np.array([max(target.width, target.height) for target in targets], dtype=np.float64)
        labels = PairLabels(
            group=2 * candidates[of_target] + (self._mirrored[of_query] != mirrored),
            query_feature=feature,
            word=words[of_common],
            side=sides[candidates[of_target]],
        )
        order = np.argsort(labels.group, kind="stable")
        keypoints = Keypoints.joined([target.keypoints for target in targets])
        return Pairs(labels.take(order), self.keypoints.take(feature[order]), keypoints.take(of_target[order]))


def _rarest(candidates: NDArray[np.intp], frequency: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return the rows of the pairs to consider: at most _MAX_PAIRS of each candidate, which is ascending."""
    sizes = np.bincount(candidates, minlength=count)
    if sizes.max() <= _MAX_PAIRS:
        return np.arange(len(candidates))
    order = np.lexsort((frequency, candidates))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[rank < _MAX_PAIRS]


def _matched(pairs: Pairs, count: int) -> NDArray[np.intp]:
    """Return the number of features of the query that are in a pair, for each candidate."""
    distinct = np.unique((pairs.labels.group // 2) << 32 | pairs.labels.query_feature)
    return np.bincount(distinct >> 32, minlength=count)


def least_agreeing(matched: int, least_score: float) -> int:
    """Return how many of `matched` features must agree for a score."""
    least = MIN_AGREEING
    while least < matched and score(surprise(least, matched)) < least_score:
        least += 1
    return least


def score(surprise: float) -> float:
    """Return the score from 0 to 100 of a surprise: 55 for 8."""
    return 100 * surprise / (surprise + _HALF_SURPRISE)


def surprise(agreeing: int, matched: int) -> float:
    """Return -log10 of the expected number of sets of `agreeing` among `matched` features that agree by chance.

    Two of a set determine the map; each further one agrees by chance with the probability _CHANCE.
    """
    if agreeing < MIN_AGREEING:
        return 0.0
    matched = max(agreeing, matched)
    sets = math.lgamma(matched + 1) - math.lgamma(agreeing + 1) - math.lgamma(matched - agreeing + 1)
    return max(0.0, -(sets + (agreeing - 2) * math.log(_CHANCE)) / math.log(10))


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
