"""Search by local features: candidates by words, verified by geometry; and the matches of both ways together."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.decoding.protocol import SignedImage
from common.images.flatness import FLAT_SCORE, is_flat, is_match_of_flat, is_searchable
from common.images.local_features.features import InvalidFeatures, LocalFeatures
from common.images.local_features.geometry import QueryFeatures, Transform, Verification
from common.images.local_features.words import LookupWords
from common.images.orientations import ORIENTATIONS
from common.images.signature import Signature
from common.search import CUTOFF, Comparison, Match, MatchedBy, SearchOptions, SignatureMatches, ordered
from common.store.base import Record, Store

VERIFIED = 40
"""Candidates whose geometry is verified: more only if many of them match, and a request asks for more matches."""
_MAX_VERIFIED = 1000
_MORE = 4
# The score of local features at the cutoff.
_MIN_SCORE = 100 * (1 - CUTOFF)

_QUARTER = math.pi / 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFeatures:
    """The local features of an image that is compared with stored ones.

    `query` finds parts, `copy` confirms copies of flat content, and `stored` are those that a store keeps of it. Each
    is None where it is not needed.
    """

    query: QueryFeatures
    copy: QueryFeatures | None = None
    stored: LocalFeatures | None = None

    @classmethod
    def of_image(cls, image: SignedImage) -> "ImageFeatures":
        """Return the features in the result of a decoder."""
        if image.query_features is None:
            raise ValueError("the decoder was not asked for the features of the image")
        stored = image.stored_features
        return cls(
            query=image.query_features,
            copy=image.copy_features,
            stored=None if stored is None else LocalFeatures.decode(stored),
        )

    @classmethod
    def of_record(cls, record: Record) -> "ImageFeatures | None":
        """Return the features of a stored image as a query, or None if it has none.

        They are fewer than those of pixels, and each has one word only: a search finds less with them.
        """
        stored = _decoded(record.features)
        if stored is None:
            return None
        each = np.arange(len(stored.words))
        lookup = LookupWords(stored.words, each, stored.words, stored.mirrored)
        query = QueryFeatures(stored.keypoints, lookup, width=stored.width, height=stored.height)
        return cls(query=query, copy=query, stored=stored)


def add_local_matches(
    similar: SignatureMatches, features: ImageFeatures, store: Store, options: SearchOptions, *, is_query_flat: bool
) -> list[Match]:
    """Return the matches of signatures and those of local features, best first; the better score of an image counts.

    The cutoff of local features is the one of signatures, or FLAT_SCORE with a flat signature; `min_score` replaces
    both.
    """
    verified = _verified(features.query, store, options)
    near = similar.unconfirmed[: _max_candidates(options)] if features.copy else []
    doubtful = (
        [] if options.min_score is not None else [name for name, one in verified.items() if one.score < FLAT_SCORE]
    )
    names = [*doubtful, *(match.filepath for match in near)]
    records = store.records(names, collection=options.selection.collection) if names else {}
    rejected = {
        filepath
        for filepath in doubtful
        if is_query_flat or (filepath in records and are_any_flat(records[filepath].signatures))
    }
    local = [_match(filepath, each) for filepath, each in verified.items() if filepath not in rejected]
    confirmed = [match for match in near if _is_confirmed(match, features.copy, records.get(match.filepath))]
    return _merged([*similar.matches, *confirmed], local)


def add_local_comparison(
    comparison: Comparison, one: ImageFeatures, other: ImageFeatures, *, is_flat: bool
) -> Comparison:
    """Return the comparison by signatures, or by local features if those match with a better score.

    `is_flat` is whether one of the images has a flat signature.
    """
    forth = None if other.stored is None else one.query.verify(other.stored)
    back = None if one.stored is None else other.query.verify(one.stored)
    verifications = [each for each in (forth, back and _inverse(back)) if each is not None]
    best = max(verifications, key=lambda each: each.score, default=None)
    if best is None or comparison.is_featureless or best.score < (FLAT_SCORE if is_flat else _MIN_SCORE):
        return comparison
    if best.score <= comparison.score:
        return replace(comparison, verification=best)
    return replace(comparison, score=best.score, matched_by=MatchedBy.LOCAL_FEATURES, verification=best)


def has_few_features(record: Record) -> bool | None:
    """Return whether searches by local features may miss a stored image; None if it has none that are comparable."""
    stored = _decoded(record.features)
    return None if stored is None else stored.are_few


def _verified(query: QueryFeatures, store: Store, options: SearchOptions) -> dict[str, Verification]:
    """Return the agreement of the stored images that match, by filepath."""
    seen: set[str] = set()
    verified: dict[str, Verification] = {}
    if not len(query.words):
        return verified
    limit = VERIFIED
    while True:
        candidates = store.candidates_by_words(query.words, limit=limit, selection=options.selection)
        latest = [candidate for candidate in candidates if candidate.filepath not in seen]
        seen.update(candidate.filepath for candidate in latest)
        for candidate in latest:
            verification = _verify(query, candidate.features)
            if verification is not None and _is_match(verification, options):
                verified[candidate.filepath] = verification
        has_more = len(candidates) >= limit and any(each.filepath in verified for each in latest[-VERIFIED // 2 :])
        if not has_more or limit >= _max_candidates(options):
            return verified
        limit = min(_MORE * limit, _max_candidates(options))


def _max_candidates(options: SearchOptions) -> int:
    """Return how many candidates a search may have to verify."""
    return max(VERIFIED, min(options.offset + options.limit, _MAX_VERIFIED))


def _verify(query: QueryFeatures, encoded: bytes) -> Verification | None:
    stored = _decoded(encoded)
    return None if stored is None else query.verify(stored)


def _decoded(encoded: bytes | None) -> LocalFeatures | None:
    """Return the features, or None for those of another version, which are not comparable."""
    try:
        return None if encoded is None else LocalFeatures.decode(encoded)
    except InvalidFeatures:
        return None


def _is_match(verification: Verification, options: SearchOptions) -> bool:
    min_score = _MIN_SCORE if options.min_score is None else options.min_score
    is_turned = _orientation(verification.transform) != ORIENTATIONS[0]
    return verification.score >= min_score and (options.all_orientations or not is_turned)


def are_any_flat(signatures: Iterable[Signature]) -> bool:
    """Return whether an image with these signatures counts as one of flat content."""
    return any(is_flat(signature) for signature in signatures if is_searchable(signature))


def _is_confirmed(match: Match, copy: QueryFeatures | None, record: Record | None) -> bool:
    """Return whether the local features of both images agree for the most part."""
    if copy is None or record is None or record.features is None:
        return False
    verification = _verify(copy, record.features)
    return is_match_of_flat(1 - match.score / 100, verification.shared if verification else 0.0)


def _match(filepath: str, verification: Verification) -> Match:
    return Match(
        score=verification.score,
        filepath=filepath,
        orientation=_orientation(verification.transform),
        matched_by=MatchedBy.LOCAL_FEATURES,
        verification=verification,
    )


def _merged(by_signature: Sequence[Match], by_features: Sequence[Match]) -> list[Match]:
    """Return each image once, with its better score; both ways may have returned it."""
    merged = {match.filepath: match for match in by_signature}
    for match in by_features:
        existing = merged.get(match.filepath)
        if existing is None or match.score > existing.score:
            merged[match.filepath] = match
        else:
            merged[match.filepath] = replace(existing, verification=match.verification)
    return ordered(list(merged.values()))


def _orientation(transform: Transform) -> str:
    """Return the one of ORIENTATIONS, without those of negatives, that is nearest to the inverse of the transform.

    >>> _orientation(Transform(1, 0, 0, 0, 1, 0))
    'original'
    >>> _orientation(Transform(0, 1, 0, -1, 0, 300))
    'rotated_90'
    """
    inverse = np.linalg.inv(_matrix(transform))[:2, :2]
    mirrored = bool(np.linalg.det(inverse) < 0)
    if mirrored:
        # An orientation mirrors the query, left to right, before it rotates it.
        inverse = inverse @ np.diag([-1.0, 1.0])
    clockwise = math.atan2(inverse[1, 0] - inverse[0, 1], inverse[0, 0] + inverse[1, 1])
    return ORIENTATIONS[4 * mirrored + round(clockwise / _QUARTER) % 4]


def _inverse(verification: Verification) -> Verification:
    """Return the verification with query and stored image exchanged."""
    m11, m12, m13, m21, m22, m23 = np.linalg.inv(_matrix(verification.transform))[:2].ravel().tolist()
    return replace(
        verification,
        query_overlap_percent=verification.target_overlap_percent,
        target_overlap_percent=verification.query_overlap_percent,
        transform=Transform(m11, m12, m13, m21, m22, m23),
    )


def _matrix(transform: Transform) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    one, two = (transform.m11, transform.m12, transform.m13), (transform.m21, transform.m22, transform.m23)
    return np.array([one, two, (0.0, 0.0, 1.0)])
