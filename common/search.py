"""Search by signatures: from those of a query to ranked matches; and the comparison of two images by signatures."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.decoding.protocol import SignedImage
from common.images.flatness import (
    BARE_REACH,
    SKETCHES_COMPARED,
    are_featureless,
    is_bare,
    is_searchable,
    sure_below,
)
from common.images.local_features.geometry import Verification
from common.images.orientations import ORIENTATIONS, turn
from common.images.signature import LENGTH, Signature, distance, distance_matrix, score
from common.queue.jobs import Metadata
from common.store.base import DEFAULT_SELECTION, Candidate, Selection, Store

# image-match's cutoff: 8 false positives in a million pairs of unrelated photographs.
CUTOFF = 0.45
# Sixteen orientations produce more false positives than one: this cutoff limits them to 1 in 100,000 pairs together.
TURNED_CUTOFF = 0.429
MIN_SCORE = 100 * (1 - CUTOFF)
"""The score at the cutoff."""
SURE_SCORE = 70
"""The mode `auto` searches by local features as well where no signature has this score."""

# A store ranks by an approximation: only a record among so many candidates gets an exact distance.
_MIN_CANDIDATES = 50
_MIN_CANDIDATES_EACH = 30

_Distances: TypeAlias = NDArray[np.float64]


class MatchedBy(StrEnum):
    """The way of comparing to which a score belongs."""

    SIGNATURE = "signature"
    LOCAL_FEATURES = "local_features"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Which matches a search returns: those of a selection, from `offset`, at most `limit`.

    Without `min_score` the cutoffs of signatures are CUTOFF and TURNED_CUTOFF, with the stricter rule of
    `common.images.flatness`. `min_score` replaces them.
    """

    all_orientations: bool
    limit: int = 100
    offset: int = 0
    min_score: float | None = None
    selection: Selection = DEFAULT_SELECTION

    @property
    def least_score(self) -> float:
        """The lowest score of a match by local features or by a sketch."""
        return MIN_SCORE if self.min_score is None else self.min_score

    @property
    def orientations(self) -> int:
        """The number of orientations of each signature that are searched for."""
        return len(ORIENTATIONS) if self.all_orientations else 1

    @property
    def candidates(self) -> int:
        """The number of candidates that each orientation needs."""
        minimum = _MIN_CANDIDATES_EACH if self.all_orientations else _MIN_CANDIDATES
        return max(minimum, self.offset + self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A stored image that looks like the query, or shares a part with it.

    `score` is from 0 to 100; `orientation`, one of ORIENTATIONS, turns the query into the stored image. `verification`
    is the agreement of local features, if they match too.
    """

    score: float
    filepath: str
    metadata: Metadata | None = None
    orientation: str
    matched_by: MatchedBy = MatchedBy.SIGNATURE
    verification: Verification | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureMatches:
    """The matches of a query's signatures, best first.

    `unconfirmed` are near images of flat content, which match only if their sketches confirm them. `is_sure` is whether
    an image has SURE_SCORE, with any `min_score`; that a stored query finds itself does not count.
    """

    matches: list[Match] = field(default_factory=list)
    unconfirmed: list[Match] = field(default_factory=list)
    is_sure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The similarity of two images: `score` is from 0 to 100; `is_featureless`: at least one has no features.

    `verification` is the agreement of local features; its transform maps the second image to the first.
    """

    score: float
    is_featureless: bool
    matched_by: MatchedBy = MatchedBy.SIGNATURE
    verification: Verification | None = None


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
    """Return the stored images like the query by signature, best first; see SearchOptions."""
    options = SearchOptions(
        all_orientations=all_orientations, limit=limit, offset=offset, min_score=min_score, selection=selection
    )
    return page(find_by_signature(signatures, store, options).matches, store, options)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignatureQuery:
    """The signatures of an image that is searched for, and which matches its search returns.

    `own_filepath` is that of a stored query within the collection that is searched.
    """

    signatures: Sequence[Signature]
    options: SearchOptions
    own_filepath: str | None = None

    @property
    def orientations(self) -> NDArray[np.int8]:
        """Return (m, n, 272): the first n orientations of each of the m signatures that a search can use."""
        searchable = [signature for signature in self.signatures if is_searchable(signature)]
        is_turned = self.options.all_orientations
        turned = [turn(each) if is_turned else each[np.newaxis] for each in searchable]
        return np.stack(turned) if turned else np.zeros((0, 1, LENGTH), np.int8)

    @property
    def reaches_further(self) -> bool:
        """Whether images beyond the cutoff may match, if their sketches confirm them."""
        return self.options.min_score is None and is_bare(filter(is_searchable, self.signatures))

    @property
    def candidates(self) -> int:
        """The number of candidates that each orientation needs."""
        return max(self.options.candidates, SKETCHES_COMPARED if self.reaches_further else 0)

    @property
    def max_distance(self) -> float:
        """A distance that neither a match nor the nearest image of a sure search exceeds."""
        min_score = self.options.min_score
        if min_score is not None:
            return max(1 - min_score / 100, 1 - SURE_SCORE / 100)
        return BARE_REACH if self.reaches_further else max(CUTOFF, TURNED_CUTOFF)


def find_by_signature(
    signatures: Sequence[Signature], store: Store, options: SearchOptions, *, own_filepath: str | None = None
) -> SignatureMatches:
    """Return the stored images like the query, at least as many as the options need.

    The query and a stored image may each have several signatures: the nearest pair counts. An image is returned once,
    in its best orientation. A featureless query has no matches.
    """
    query = SignatureQuery(signatures=signatures, options=options, own_filepath=own_filepath)
    [matches] = find_all_by_signature([query], store)
    return matches


def find_all_by_signature(queries: Sequence[SignatureQuery], store: Store) -> list[SignatureMatches]:
    """Return the result of `find_by_signature` for each query; queries of one selection share a call of the store."""
    results = [SignatureMatches()] * len(queries)
    for indices in _groups(queries):
        turned = [queries[index].orientations for index in indices]
        rows = np.concatenate([each.reshape(-1, LENGTH) for each in turned])
        if not len(rows):
            continue
        first = queries[indices[0]]
        per_row = iter(
            store.candidates(
                rows,
                limit=first.candidates,
                selection=first.options.selection,
                max_distance=first.max_distance,
            )
        )
        for index, each in zip(indices, turned, strict=True):
            own = list(islice(per_row, len(each) * each.shape[1]))
            query = queries[index]
            results[index] = rank(
                each, _distinct(own), min_score=query.options.min_score, own_filepath=query.own_filepath
            )
    return results


def _groups(queries: Sequence[SignatureQuery]) -> Iterable[list[int]]:
    """Return the indices of the searches that one call of the store can answer."""
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for index, query in enumerate(queries):
        selection = query.options.selection
        where = tuple(sorted(selection.where.items()))
        key = selection.collection, selection.filepath_prefix, where, query.max_distance, query.candidates
        groups[key].append(index)
    return groups.values()


def rank(
    queries: NDArray[np.int8],
    candidates: Sequence[Candidate],
    *,
    min_score: float | None,
    own_filepath: str | None = None,
) -> SignatureMatches:
    """Return the candidates within the cutoff as matches without metadata, best first.

    `queries` (m, n, 272) are the first n orientations of each of the query's m signatures. The nearest pair of
    signatures counts.
    """
    if not candidates:
        return SignatureMatches()
    sure, doubtful = _distances(queries, candidates)
    others = np.array([candidate.filepath != own_filepath for candidate in candidates])
    is_sure = bool(others.any()) and bool(score(sure[:, others].min()) >= SURE_SCORE)
    if min_score is not None:
        sure, doubtful = np.minimum(sure, doubtful), np.full_like(doubtful, np.inf)
    is_near = doubtful < BARE_REACH if is_bare(queries[:, 0]) else _within_cutoff(doubtful, min_score)
    nearest, nearest_doubtful = _nearest(sure, _within_cutoff(sure, min_score)), _nearest(doubtful, is_near)
    matches, unconfirmed = [], []
    for candidate, match, doubt in zip(candidates, nearest, nearest_doubtful, strict=True):
        if match is not None:
            matches.append(_match(candidate, *match))
        elif doubt is not None:
            unconfirmed.append(_match(candidate, *doubt))
    return SignatureMatches(matches=ordered(matches), unconfirmed=ordered(unconfirmed), is_sure=is_sure)


def ordered(matches: Sequence[Match]) -> list[Match]:
    """Return the matches best first, equal scores by filepath."""
    return sorted(matches, key=lambda match: (-match.score, match.filepath))


def page(matches: Sequence[Match], store: Store, options: SearchOptions) -> list[Match]:
    """Return the part that the options ask for, with metadata; matches that were deleted meanwhile are omitted."""
    [part] = pages([(matches, options)], store)
    return part


def pages(ranked: Sequence[tuple[Sequence[Match], SearchOptions]], store: Store) -> list[list[Match]]:
    """Return the result of `page` for the matches of each search; those of one collection share a call of the store."""
    parts = [matches[options.offset : options.offset + options.limit] for matches, options in ranked]
    filepaths: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for part, (_, options) in zip(parts, ranked, strict=True):
        filepaths[options.selection.collection].update(dict.fromkeys(match.filepath for match in part))
    stored = {name: store.metadata([*paths], collection=name) if paths else {} for name, paths in filepaths.items()}
    return [
        [replace(match, metadata=metadata[match.filepath]) for match in part if match.filepath in metadata]
        for part, (_, options) in zip(parts, ranked, strict=True)
        for metadata in [stored[options.selection.collection]]
    ]


def compare(one: SignedImage, other: SignedImage) -> Comparison:
    """Compare two images by signatures; if both are featureless, the score is 100 for equal pixels."""
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


def _distances(queries: NDArray[np.int8], candidates: Sequence[Candidate]) -> tuple[_Distances, _Distances]:
    """Return (orientations, candidates) twice: the distance of the nearest pair that is sure, and that is doubtful."""
    rows = np.stack([signature for candidate in candidates for signature in candidate.signatures])
    counts = [len(candidate.signatures) for candidate in candidates]
    exact = distance_matrix(queries.reshape(-1, LENGTH), rows)
    exact = exact.reshape(*queries.shape[:2], -1).min(axis=0)
    is_near = exact.min(axis=0) < BARE_REACH
    limits = np.zeros(len(rows))
    limits[is_near] = sure_below(queries[:, 0], rows[is_near])
    is_sure = exact < limits
    starts = np.cumsum([0, *counts[:-1]])
    sure, doubtful = (
        np.minimum.reduceat(np.where(is_sure == is_wanted, exact, np.inf), starts, axis=1)
        for is_wanted in (True, False)
    )
    return sure, doubtful


def _nearest(apart: _Distances, is_within: NDArray[np.bool_]) -> list[tuple[float, int] | None]:
    """Return for each candidate its least distance that is within, and the orientation's index."""
    apart = np.where(is_within, apart, np.inf)
    # argmin returns the first of equal distances, and the original orientation is the first.
    nearest = zip(apart.min(axis=0).tolist(), apart.argmin(axis=0).tolist(), strict=True)
    return [each if each[0] < np.inf else None for each in nearest]


def _match(candidate: Candidate, apart: float, turned: int) -> Match:
    return Match(score=score(apart), filepath=candidate.filepath, orientation=ORIENTATIONS[turned])


def _within_cutoff(apart: _Distances, min_score: float | None) -> NDArray[np.bool_]:
    """Return for each distance (orientations, candidates) whether it is a match."""
    if min_score is not None:
        return score(apart) >= min_score
    cutoffs = np.array([CUTOFF] + [TURNED_CUTOFF] * (len(apart) - 1))
    return apart < cutoffs[:, np.newaxis]
