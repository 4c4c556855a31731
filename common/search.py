"""Search: from a query's signatures to ranked matches; and the comparison of two images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.decoding.protocol import SignedImage
from common.images.orientations import ORIENTATIONS, turn
from common.images.signature import LENGTH, Signature, are_featureless, distance, distances, is_featureless, score
from common.queue.jobs import Metadata
from common.store.base import DEFAULT_SELECTION, Candidate, Selection, Store

# image-match's cutoff: 8 false positives in a million pairs of unrelated photographs.
CUTOFF = 0.45
# Sixteen orientations produce more false positives than one: this cutoff limits them to 1 in 100,000 pairs together.
TURNED_CUTOFF = 0.429

# A store ranks by an approximation: only a record among so many candidates gets an exact distance.
_MIN_CANDIDATES = 50
_MIN_CANDIDATES_EACH = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A stored image that looks like the query.

    `score` is from 0 to 100; `orientation`, one of ORIENTATIONS, turns the query into the stored image.
    """

    score: float
    filepath: str
    metadata: Metadata | None = None
    orientation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The similarity of two images: `score` is from 0 to 100; `is_featureless`: at least one has no features."""

    score: float
    is_featureless: bool


def search(  # noqa: PLR0913 - the options are keyword arguments
    signatures: Sequence[Signature],
    store: Store,
    *,
    all_orientations: bool,
    limit: int = 100,
    offset: int = 0,
    min_score: float | None = None,
    selection: Selection = DEFAULT_SELECTION,
) -> list[Match]:
    """Return the stored images like the query, best first, equal scores by filepath.

    The query and a stored image may each have several signatures: the nearest pair counts. Without `min_score` the
    cutoffs are CUTOFF and TURNED_CUTOFF; `min_score` replaces both. An image is returned once, in its best orientation.
    A featureless query has no matches.
    """
    featured = [signature for signature in signatures if not is_featureless(signature)]
    if not featured:
        return []
    queries = np.stack([turn(each) if all_orientations else each[np.newaxis] for each in featured])
    minimum = _MIN_CANDIDATES_EACH if all_orientations else _MIN_CANDIDATES
    candidates = store.candidates(
        queries.reshape(-1, LENGTH),
        limit=max(minimum, offset + limit),
        selection=selection,
        max_distance=_max_distance(min_score),
    )
    matches = rank(queries, _distinct(candidates), min_score=min_score)
    return _with_metadata(matches[offset : offset + limit], store, selection.collection)


def rank(queries: NDArray[np.int8], candidates: Sequence[Candidate], *, min_score: float | None) -> list[Match]:
    """Return the candidates within the cutoff as matches without metadata, best first.

    `queries` (m, n, 272) are the first n orientations of each of the query's m signatures. The nearest pair of
    signatures counts.
    """
    if not candidates:
        return []
    apart = _distances(queries, candidates)
    apart[~_within_cutoff(apart, min_score)] = np.inf
    # argmin returns the first of equal distances, and the original orientation is the first.
    best = zip(candidates, apart.argmin(axis=0).tolist(), apart.min(axis=0).tolist(), strict=True)
    matches = [
        Match(score=score(nearest), filepath=candidate.filepath, orientation=ORIENTATIONS[turned])
        for candidate, turned, nearest in best
        if nearest < np.inf
    ]
    return sorted(matches, key=lambda match: (-match.score, match.filepath))


def compare(one: SignedImage, other: SignedImage) -> Comparison:
    """Compare two images; if both are featureless, the score is 100 for equal pixels."""
    comparison = similarity(one.signatures, other.signatures)
    # Only a featureless image has a hash of its pixels.
    if comparison.is_featureless and one.pixels_sha256 == other.pixels_sha256:
        return replace(comparison, score=100.0)
    return comparison


def similarity(one: Sequence[Signature], other: Sequence[Signature]) -> Comparison:
    """Compare the signatures of two images by the nearest pair; if either image is featureless, the score is 0."""
    if are_featureless(one) or are_featureless(other):
        return Comparison(score=0.0, is_featureless=True)
    nearest = min(distance(first, second) for first in one for second in other)
    return Comparison(score=score(nearest), is_featureless=False)


def _distinct(per_query: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """Return each candidate once: all queries are compared with it, not only those that returned it."""
    return list({candidate.filepath: candidate for nearest in per_query for candidate in nearest}.values())


def _distances(queries: NDArray[np.int8], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Return (orientations, candidates): the distance of the nearest pair of signatures."""
    rows = np.stack([signature for candidate in candidates for signature in candidate.signatures])
    counts = [len(candidate.signatures) for candidate in candidates]
    exact = np.stack([distances(query, rows) for query in queries.reshape(-1, LENGTH)])
    exact = exact.reshape(*queries.shape[:2], -1).min(axis=0)
    nearest: NDArray[np.float64] = np.minimum.reduceat(exact, np.cumsum([0, *counts[:-1]]), axis=1)
    return nearest


def _max_distance(min_score: float | None) -> float:
    """Return a distance that no match exceeds."""
    return max(CUTOFF, TURNED_CUTOFF) if min_score is None else 1 - min_score / 100


def _within_cutoff(apart: NDArray[np.float64], min_score: float | None) -> NDArray[np.bool_]:
    """Return for each distance (orientations, candidates) whether it is a match."""
    if min_score is not None:
        return score(apart) >= min_score
    cutoffs = np.array([CUTOFF] + [TURNED_CUTOFF] * (len(apart) - 1))
    return apart < cutoffs[:, np.newaxis]


def _with_metadata(matches: Sequence[Match], store: Store, collection: str) -> list[Match]:
    """Add the stored metadata; matches that were deleted meanwhile are omitted."""
    stored = store.metadata([match.filepath for match in matches], collection=collection) if matches else {}
    return [replace(match, metadata=stored[match.filepath]) for match in matches if match.filepath in stored]
