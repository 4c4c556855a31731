"""Matches of drawn images: text pages, icons, charts and screens, whose sketches decide on them."""

from dataclasses import replace

from common.images.flatness import SKETCHES_COMPARED, drawn_score
from common.images.local_features.features import LocalFeatures
from common.images.local_features.geometry import Transform
from common.images.local_features.sketches import SmallCopy
from common.images.orientations import ORIENTATIONS
from common.search import SURE_SCORE, SearchOptions, SignatureMatches, ordered
from common.store.base import Store


def decide_by_sketches(
    similar: SignatureMatches, small_copy: SmallCopy | None, store: Store, options: SearchOptions
) -> SignatureMatches:
    """Return the matches of signatures, those of drawn images with the scores of their sketches.

    A near image of flat content that has no sketch does not match. `small_copy` is that of the query.
    """
    if small_copy is None:
        return replace(similar, unconfirmed=[])
    compared = max(SKETCHES_COMPARED, options.offset + options.limit)
    near = ordered([*similar.matches, *similar.unconfirmed])[:compared]
    filepaths = [match.filepath for match in near]
    records = store.records(filepaths, collection=options.selection.collection) if near else {}
    unconfirmed = {match.filepath for match in similar.unconfirmed}
    matches = []
    for match in near:
        record = records.get(match.filepath)
        stored = LocalFeatures.decode_comparable(record.features) if record else None
        score = sketch_score(small_copy, stored, orientation=match.orientation)
        if score is None and match.filepath not in unconfirmed:
            matches.append(match)
        elif score is not None and score >= options.least_score:
            matches.append(replace(match, score=score))
    return SignatureMatches(matches=ordered(matches), is_sure=any(match.score >= SURE_SCORE for match in matches))


def sketch_score(
    small_copy: SmallCopy | None,
    stored: LocalFeatures | None,
    *,
    transform: Transform | None = None,
    orientation: str = ORIENTATIONS[0],
) -> float | None:
    """Return the score of a stored image by its sketch; None if it has none, or if the query's pixels are not known."""
    if stored is None or small_copy is None:
        return None
    return drawn_score(small_copy, stored, transform=transform, orientation=orientation)
