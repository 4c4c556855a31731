"""Search by local features: candidates by words, verified by geometry; and the matches of both ways together."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.decoding.protocol import SignedImage
from common.images.flatness import DRAWN_CANDIDATE_SCORE, FLAT_SCORE, is_flat, is_searchable
from common.images.local_features.features import LocalFeatures
from common.images.local_features.geometry import QueryFeatures, Transform, Verification
from common.images.local_features.sketches import SmallCopy
from common.images.local_features.words import LookupWords
from common.images.orientations import ORIENTATIONS
from common.images.signature import Signature
from common.search import MIN_SCORE, Comparison, Match, MatchedBy, SearchOptions, ordered
from common.sketch_matches import sketch_score
from common.store.base import Record, Store, WordCandidate

VERIFIED = 40
"""Candidates whose geometry is verified: more only if many of them match, and a request asks for more matches."""
DRAWN_VERIFIED = 160
"""The same if drawn images agree, but no sketch: images of one frame share its words, and hide a copy."""
WHOLE_COMPARED = 5
"""So many of the best candidates are compared as a whole if they are drawn and their features do not agree.

Features are stored with their position in the image: those of one line on a page lie too near to verify anything. Of
images with fewer than FEW_WORDS, all candidates are compared: a copy shares too few with them to be among the best.
"""
FEW_WORDS = 50
_MAX_VERIFIED = 1000
_MORE = 4

_QUARTER = math.pi / 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFeatures:
    """The local features of an image that is compared with stored ones.

    `query` finds parts, `small_copy` is compared with sketches, and `stored` are those that a store keeps of it. The
    last two are None where they are not needed or not known.
    """

    query: QueryFeatures
    small_copy: SmallCopy | None = None
    stored: LocalFeatures | None = None

    @property
    def has_sketch(self) -> bool:
        """Whether it is a drawn image."""
        return self.stored is not None and self.stored.sketch is not None

    @classmethod
    def of_image(cls, image: SignedImage) -> "ImageFeatures":
        """Return the features in the result of a decoder."""
        if image.query_features is None:
            raise ValueError("the decoder was not asked for the features of the image")
        stored = image.stored_features
        return cls(
            query=image.query_features,
            small_copy=image.small_copy,
            stored=None if stored is None else LocalFeatures.decode(stored),
        )

    @classmethod
    def of_record(cls, record: Record) -> "ImageFeatures | None":
        """Return the features of a stored image as a query, or None if it has none.

        They are fewer than those of pixels, and each has one word only: a search finds less with them.
        """
        stored = LocalFeatures.decode_comparable(record.features)
        if stored is None:
            return None
        each = np.arange(len(stored.words))
        lookup = LookupWords(stored.words, each, stored.words, stored.mirrored)
        query = QueryFeatures(stored.keypoints, lookup, width=stored.width, height=stored.height)
        return cls(query=query, stored=stored)


def add_local_matches(
    similar: Sequence[Match], features: ImageFeatures, store: Store, options: SearchOptions, *, is_query_flat: bool
) -> list[Match]:
    """Return the matches of signatures and those of local features, best first; the better score of an image counts.

    The cutoff of local features is the one of signatures, or FLAT_SCORE if both images have a flat signature.
    `min_score` replaces both. The score of a drawn image is that of its sketch.
    """
    parts = _parts(features, store, options)
    weak = [part.match.filepath for part in parts if not part.is_drawn and part.match.score < FLAT_SCORE]
    if options.min_score is not None or not is_query_flat:
        weak = []
    records = store.records(weak, collection=options.selection.collection) if weak else {}
    rejected = {filepath for filepath, record in records.items() if are_any_flat(record.signatures)}
    return _merged(similar, [part.match for part in parts if part.match.filepath not in rejected])


def add_local_comparison(
    comparison: Comparison, one: ImageFeatures, other: ImageFeatures, *, is_flat: bool
) -> Comparison:
    """Return the comparison by signatures, or by local features if those match with a better score.

    Each image may be a part of the other. `is_flat` is whether both have a flat signature. The sketch of a drawn
    image decides on it.
    """
    if comparison.is_featureless:
        return comparison
    forth = _compare_part(comparison, one, other, is_flat=is_flat)
    back = _compare_part(comparison, other, one, is_flat=is_flat)
    if back.score <= forth.score:
        return forth
    return replace(back, verification=None if back.verification is None else _inverse(back.verification))


def _compare_part(comparison: Comparison, query: ImageFeatures, target: ImageFeatures, *, is_flat: bool) -> Comparison:
    """Return the comparison where the query shows the target."""
    if target.stored is None:
        return comparison
    verification = query.query.verify(target.stored)
    transform = verification.transform if verification else None
    by_sketch = sketch_score(query.small_copy, target.stored, transform=transform)
    by_features = replace(comparison, matched_by=MatchedBy.LOCAL_FEATURES, verification=verification)
    if by_sketch is not None:
        is_match = by_sketch >= MIN_SCORE
        return replace(by_features, score=by_sketch, verification=verification if is_match else None)
    if verification is None or verification.score < (FLAT_SCORE if is_flat else MIN_SCORE):
        return comparison
    if verification.score <= comparison.score:
        return replace(comparison, verification=verification)
    return replace(by_features, score=verification.score)


def has_few_features(record: Record) -> bool | None:
    """Return whether searches by local features may miss a stored image; None if it has none that are comparable."""
    stored = LocalFeatures.decode_comparable(record.features)
    return None if stored is None else stored.are_few


def are_any_flat(signatures: Iterable[Signature]) -> bool:
    """Return whether an image with these signatures counts as one of flat content."""
    return any(is_flat(signature) for signature in signatures if is_searchable(signature))


@dataclass(frozen=True, slots=True)
class _Part:
    """A stored image that agrees with a query, whether a sketch decided on it, and whether it is a match."""

    match: Match
    is_drawn: bool
    is_match: bool


def _parts(features: ImageFeatures, store: Store, options: SearchOptions) -> list[_Part]:
    """Return the stored images that match a part of the query."""
    seen: set[str] = set()
    parts: dict[str, _Part] = {}
    if not len(features.query.words):
        return []
    limit, most = VERIFIED, _max_candidates(options)
    while True:
        candidates = store.candidates_by_words(features.query.words, limit=limit, selection=options.selection)
        latest = [candidate for candidate in candidates if candidate.filepath not in seen]
        seen.update(candidate.filepath for candidate in latest)
        parts |= {part.match.filepath: part for part in _agreeing(latest, features, options)}
        last = [parts[each.filepath] for each in latest[-VERIFIED // 2 :] if each.filepath in parts]
        is_hidden = any(part.is_drawn for part in last) and not any(part.is_match for part in parts.values())
        if is_hidden:
            most = max(most, DRAWN_VERIFIED)
        has_more = len(candidates) >= limit and (is_hidden or any(part.is_match for part in last))
        if not has_more or limit >= most:
            return [part for part in parts.values() if part.is_match]
        limit = min(_MORE * limit, most)


def _agreeing(candidates: Sequence[WordCandidate], features: ImageFeatures, options: SearchOptions) -> Iterator[_Part]:
    """Yield the candidates whose local features agree with those of the query."""
    decoded = [(candidate.filepath, LocalFeatures.decode_comparable(candidate.features)) for candidate in candidates]
    comparable = [(filepath, stored) for filepath, stored in decoded if stored is not None]
    # A sketch may raise the score of a drawn image, so that candidates below the cutoff count too.
    least_score = min(options.least_score, DRAWN_CANDIDATE_SCORE)
    results = features.query.verify_all([stored for _, stored in comparable], least_score=least_score)
    for rank, ((filepath, stored), result) in enumerate(zip(comparable, results, strict=True)):
        is_compared = rank < WHOLE_COMPARED or len(stored.words) < FEW_WORDS
        is_whole = result is None and is_compared and stored.sketch is not None
        verification = _whole(stored, features.query) if is_whole else result
        if verification is not None:
            yield _part(filepath, stored, verification, features, options)


def _whole(stored: LocalFeatures, query: QueryFeatures) -> Verification:
    """Return the map of a whole image to the whole query, for its sketch to decide."""
    return Verification(
        score=DRAWN_CANDIDATE_SCORE,
        query_overlap_percent=100,
        target_overlap_percent=100,
        transform=Transform(query.width / stored.width, 0, 0, 0, query.height / stored.height, 0),
        mirrored=False,
        agreeing=0,
    )


def _part(
    filepath: str, stored: LocalFeatures, verification: Verification, features: ImageFeatures, options: SearchOptions
) -> _Part:
    match = _match(filepath, verification)
    is_drawn = stored.sketch is not None and features.small_copy is not None
    if is_drawn and match.score >= DRAWN_CANDIDATE_SCORE:
        score = sketch_score(features.small_copy, stored, transform=verification.transform) or 0.0
        match = replace(match, score=score)
    is_wanted = options.all_orientations or match.orientation == ORIENTATIONS[0]
    return _Part(match, is_drawn, is_wanted and match.score >= options.least_score)


def _max_candidates(options: SearchOptions) -> int:
    """Return how many candidates a search may have to verify."""
    return max(VERIFIED, min(options.offset + options.limit, _MAX_VERIFIED))


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
    inverse = transform.inverse().matrix[:, :2]
    mirrored = bool(np.linalg.det(inverse) < 0)
    if mirrored:
        # An orientation mirrors the query, left to right, before it rotates it.
        inverse = inverse @ np.diag([-1.0, 1.0])
    clockwise = math.atan2(inverse[1, 0] - inverse[0, 1], inverse[0, 0] + inverse[1, 1])
    return ORIENTATIONS[4 * mirrored + round(clockwise / _QUARTER) % 4]


def _inverse(verification: Verification) -> Verification:
    """Return the verification with query and stored image exchanged."""
    return replace(
        verification,
        query_overlap_percent=verification.target_overlap_percent,
        target_overlap_percent=verification.query_overlap_percent,
        transform=verification.transform.inverse(),
    )
