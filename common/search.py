"""Query to ranked matches: the read path, start to end; and the comparison of two pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.pictures.images import Picture
from common.pictures.orientations import ORIENTATIONS, turn
from common.pictures.signature import Signature, distance, distances, is_featureless, score, sign
from common.queue.jobs import Metadata
from common.store.base import Candidate, Store

# image-match's own: 8 false matches in a million pairs of unrelated photographs.
CUTOFF = 0.45
# Fifteen more chances to be wrong: at this distance all sixteen together keep to 1 in 100,000.
TURNED_CUTOFF = 0.429

# A store ranks by an approximation: what is near has to be among so many, or the exact distance never sees it.
_FEWEST_CANDIDATES = 50
_FEWEST_CANDIDATES_EACH = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A stored picture that looks like the query.

    `score` is from 0 to 100; `orientation`, one of ORIENTATIONS, is what turns the query into the stored picture.
    """

    score: float
    filepath: str
    metadata: Metadata | None = None
    orientation: str


def search(  # noqa: PLR0913 - the options are named at every call
    signature: Signature,
    store: Store,
    *,
    all_orientations: bool,
    limit: int = 100,
    offset: int = 0,
    min_score: float | None = None,
    where: Mapping[str, str] | None = None,
) -> list[Match]:
    """Return the stored pictures like the query, best first, equal scores by filepath.

    Without `min_score` the cutoffs are CUTOFF and TURNED_CUTOFF; a given one holds for every orientation. A picture
    counts once, in its best orientation. A featureless query finds nothing. `where` keeps to pictures with such
    metadata (see Store).
    """
    if is_featureless(signature):
        return []
    queries = turn(signature) if all_orientations else signature[np.newaxis]
    fewest = _FEWEST_CANDIDATES_EACH if all_orientations else _FEWEST_CANDIDATES
    found = store.candidates(queries, limit=max(fewest, offset + limit), where=where)
    matches = rank(queries, _distinct(found), min_score=min_score)
    return _described(matches[offset : offset + limit], store)


def rank(queries: NDArray[np.int8], candidates: Sequence[Candidate], *, min_score: float | None) -> list[Match]:
    """Return the candidates that are near enough, best first, still without metadata.

    `queries` (n, 272) are the first n of the query's orientations. Of a candidate's signatures the nearest counts.
    """
    if not candidates:
        return []
    apart = _apart(queries, candidates)
    apart[~_near_enough(apart, min_score)] = np.inf
    # Of equal distances the first is taken, and the picture as it is comes first.
    best = zip(candidates, apart.argmin(axis=0).tolist(), apart.min(axis=0).tolist(), strict=True)
    matches = [
        Match(score=score(nearest), filepath=candidate.filepath, orientation=ORIENTATIONS[turned])
        for candidate, turned, nearest in best
        if nearest < np.inf
    ]
    return sorted(matches, key=lambda match: (-match.score, match.filepath))


def compare(one: Picture, other: Picture) -> float:
    """Return how alike two pictures are, from 0 to 100.

    Where either has no features to compare, equal pixels are 100, all else is 0.
    """
    ours, theirs = sign(one.pixels), sign(other.pixels)
    if is_featureless(ours) and is_featureless(theirs):
        return 100.0 if np.array_equal(one.pixels, other.pixels) else 0.0
    return likeness(ours, theirs)


def likeness(ours: Signature, theirs: Signature) -> float:
    """Return how alike two signatures are, from 0 to 100; 0 where either has no features to compare."""
    if is_featureless(ours) or is_featureless(theirs):
        return 0.0
    return score(distance(ours, theirs))


def _distinct(found: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """Return each filepath once: a candidate is tried in all orientations, whichever of them brought it up."""
    return list({candidate.filepath: candidate for nearest in found for candidate in nearest}.values())


def _apart(queries: NDArray[np.int8], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Return (queries, candidates): how far the nearest of a candidate's signatures is."""
    rows = np.stack([signature for candidate in candidates for signature in candidate.signatures])
    counts = [len(candidate.signatures) for candidate in candidates]
    exact = np.stack([distances(query, rows) for query in queries])
    nearest: NDArray[np.float64] = np.minimum.reduceat(exact, np.cumsum([0, *counts[:-1]]), axis=1)
    return nearest


def _near_enough(apart: NDArray[np.float64], min_score: float | None) -> NDArray[np.bool_]:
    """Say of each distance (orientations, candidates) whether it makes a match."""
    if min_score is not None:
        return score(apart) >= min_score
    cutoffs = np.array([CUTOFF] + [TURNED_CUTOFF] * (len(apart) - 1))
    return apart < cutoffs[:, np.newaxis]


def _described(matches: Sequence[Match], store: Store) -> list[Match]:
    """Add what is stored about each; one deleted since it was found is left out."""
    stored = store.metadata([match.filepath for match in matches]) if matches else {}
    return [replace(match, metadata=stored[match.filepath]) for match in matches if match.filepath in stored]
