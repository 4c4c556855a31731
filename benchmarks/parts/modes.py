"""The scores of a query in each mode, by the functions of the service, over a collection in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from parts.feature_index import Collection, Pixels, signatures

from common.images.flatness import (
    BARE_REACH,
    DRAWN_CANDIDATE_SCORE,
    FLAT_SCORE,
    SKETCHES_COMPARED,
    drawn_score,
    is_bare,
    is_flat,
    sure_below,
)
from common.images.local_features.drawing import shrink
from common.images.local_features.extraction import extract_query
from common.images.local_features.geometry import QueryFeatures
from common.images.local_features.sketches import SmallCopy
from common.images.orientations import ORIENTATIONS, turn
from common.local_search import DRAWN_VERIFIED, FEW_WORDS, VERIFIED, WHOLE_COMPARED
from common.search import CUTOFF, MIN_SCORE, SURE_SCORE, TURNED_CUTOFF

# Distances beyond the cutoff are kept, because the threshold of a false-positive rate may be among them.
_KEPT = 0.52
# Lower scores of local features cannot decide a threshold.
_KEPT_SCORE = 20.0


Apart = tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.bool_]]


@dataclass
class Query:
    """An image to search for, with what is extracted from it on demand."""

    pixels: Pixels
    signatures: list[NDArray[np.int8]] = field(init=False)
    is_flat: bool = field(init=False)
    _small_copy: SmallCopy | None = None
    _apart: Apart | None = None

    def __post_init__(self) -> None:
        self.signatures = signatures(self.pixels)
        self.is_flat = any(is_flat(signature) for signature in self.signatures)

    def apart(self, collection: Collection) -> Apart:
        """Return, for each signature of a collection, the least distance, its orientation, and whether it matches."""
        if self._apart is None:
            turned = np.stack([turn(signature) for signature in self.signatures])
            cutoffs = np.array([CUTOFF] + [TURNED_CUTOFF] * (turned.shape[1] - 1))
            apart = collection.distances(turned.reshape(-1, turned.shape[2]))
            within = (apart < np.tile(cutoffs, len(turned))[:, np.newaxis]).any(axis=0)
            self._apart = apart.min(axis=0), apart.argmin(axis=0) % turned.shape[1], within
        return self._apart

    def local(self) -> QueryFeatures:
        """Return the features of the query."""
        rows, columns, _ = self.pixels.shape
        return extract_query(self.pixels, width=columns, height=rows)

    def small_copy(self) -> SmallCopy:
        """Return the small copy of the query."""
        if self._small_copy is None:
            rows, columns, _ = self.pixels.shape
            self._small_copy = shrink(self.pixels, width=columns, height=rows)
        return self._small_copy


Scores = dict[int, tuple[float, bool]]
"""By row of the collection: the score, and whether it is a match at the shipped cutoffs."""


def by_signature(query: Query, collection: Collection) -> Scores:
    """Return the scores of signatures in all orientations; sketches decide on drawn images."""
    scores: Scores = {}
    if not query.signatures:
        return scores
    distances, orientations, matches = query.apart(collection)
    reach = BARE_REACH if is_bare(query.signatures) else 0.0
    nearest = set(np.argsort(distances, kind="stable")[:SKETCHES_COMPARED].tolist())
    columns = np.flatnonzero(distances < max(_KEPT, reach))
    queries = np.array(query.signatures, dtype=np.int8)
    limits = sure_below(queries, collection.signatures[columns])
    for column, limit in zip(columns.tolist(), limits.tolist(), strict=True):
        row, distance, is_match = int(collection.owners[column]), float(distances[column]), bool(matches[column])
        target, score = collection.features[row], 100 * (1 - distance)
        if target.sketch:
            if column not in nearest or not (is_match or distance < reach):
                continue
            score = drawn_score(query.small_copy(), target, orientation=ORIENTATIONS[orientations[column]]) or 0.0
            is_match = score >= MIN_SCORE
        elif distance >= limit:
            is_match = False
        elif distance >= _KEPT:
            continue
        scores[row] = max(scores.get(row, (0.0, False)), (score, is_match))
    return scores


def by_features(query: Query, collection: Collection) -> tuple[Scores, NDArray[np.uint32]]:
    """Return the scores of local features above 20, and the words that were looked up.

    More candidates are verified under the service's conditions.
    """
    features = query.local()
    candidates = collection.candidates(features.words, DRAWN_VERIFIED)
    scores = verify(query, features, candidates[:VERIFIED], collection)
    last = candidates[VERIFIED // 2 : VERIFIED]
    has_drawn = any(row in scores and collection.features[row].sketch for row in last)
    if has_drawn and not any(is_match for _, is_match in scores.values()):
        scores |= verify(query, features, candidates[VERIFIED:], collection)
    return scores, features.words


def verify(query: Query, features: QueryFeatures, candidates: Sequence[int], collection: Collection) -> Scores:
    """Return the scores of these rows that are above 20."""
    scores: Scores = {}
    targets = [collection.features[row] for row in candidates]
    verified = features.verify_all(targets, least_score=_KEPT_SCORE)
    for rank, (row, target, verification) in enumerate(zip(candidates, targets, verified, strict=True)):
        is_candidate = verification is not None and verification.score >= DRAWN_CANDIDATE_SCORE
        is_compared = is_candidate or rank < WHOLE_COMPARED or len(target.words) < FEW_WORDS
        if target.sketch and is_compared:
            transform = verification.transform if verification and is_candidate else None
            score, least = drawn_score(query.small_copy(), target, transform=transform) or 0.0, MIN_SCORE
        elif target.sketch or verification is None:
            continue
        else:
            score, least = verification.score, MIN_SCORE
            if query.is_flat and row in collection.flat_rows:
                least = FLAT_SCORE
        scores[row] = score, score >= least
    return scores


def search(query: Query, collection: Collection) -> tuple[dict[str, Scores], NDArray[np.uint32]]:
    """Return the scores in each mode, and of local features only; and the words that were looked up."""
    fast = by_signature(query, collection)
    local, words = by_features(query, collection)
    both = {row: max(fast.get(row, (0.0, False)), local.get(row, (0.0, False))) for row in fast | local}
    is_sure = any(score >= SURE_SCORE for score, _ in fast.values())
    return {
        "fast": fast,
        "auto": fast if is_sure else both,
        "thorough": both,
        "local features": local,
    }, words
