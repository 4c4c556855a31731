"""The scores of a query in each mode, by the functions of the service, over a collection in memory."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from parts.feature_index import Collection, Pixels, signatures

from common.images.flatness import FLAT_SCORE, is_flat, is_match_of_flat
from common.images.local_features.extraction import STORED, extract_query
from common.images.local_features.features import LocalFeatures
from common.images.local_features.geometry import QueryFeatures
from common.images.orientations import turn
from common.search import CUTOFF, TURNED_CUTOFF

MODES = ("fast", "auto", "thorough")
VERIFIED = 40
"""Candidates whose geometry is verified."""
SURE = 70
"""`auto` searches by local features as well where no signature reaches this score."""

# Distances beyond the cutoff are kept, because the threshold of a false-positive rate may be among them.
_KEPT = 0.52
# Lower scores of local features cannot decide a threshold.
_KEPT_SCORE = 20.0


@dataclass
class Query:
    """An image to search for, with what is extracted from it on demand."""

    pixels: Pixels
    signatures: list[NDArray[np.int8]] = field(init=False)
    is_flat: bool = field(init=False)
    _at_stored: QueryFeatures | None = None
    _apart: tuple[NDArray[np.float32], NDArray[np.bool_]] | None = None

    def __post_init__(self) -> None:
        self.signatures = signatures(self.pixels)
        self.is_flat = any(is_flat(signature) for signature in self.signatures)

    def apart(self, collection: Collection) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return, for each signature of a collection, the least distance, and whether it is within its cutoff."""
        if self._apart is None:
            if not self.signatures:
                return np.zeros(0, dtype=np.float32), np.zeros(0, dtype=bool)
            turned = np.stack([turn(signature) for signature in self.signatures])
            cutoffs = np.array([CUTOFF] + [TURNED_CUTOFF] * (turned.shape[1] - 1))
            apart = collection.distances(turned.reshape(-1, turned.shape[2]))
            within = (apart < np.tile(cutoffs, len(turned))[:, np.newaxis]).any(axis=0)
            self._apart = apart.min(axis=0), within
        return self._apart

    def local(self) -> QueryFeatures:
        """Return the features of the query."""
        rows, columns, _ = self.pixels.shape
        return extract_query(self.pixels, width=columns, height=rows)

    def shared(self, target: LocalFeatures) -> float:
        """Return the share of features in common with a stored image, at its resolution."""
        if self._at_stored is None:
            rows, columns, _ = self.pixels.shape
            self._at_stored = extract_query(self.pixels, width=columns, height=rows, resolution=STORED)
        verification = self._at_stored.verify(target)
        return verification.shared if verification else 0.0


Scores = dict[int, tuple[float, bool]]
"""By row of the collection: the score, and whether it is a match at the shipped cutoffs."""


def by_signature(query: Query, collection: Collection, *, confirm: bool) -> Scores:
    """Return the scores of signatures in all orientations; `confirm` has local features decide on flat content."""
    distances, matches = query.apart(collection)
    scores: Scores = {}
    for column in np.flatnonzero(distances < _KEPT).tolist():
        row, distance, is_match = int(collection.owners[column]), float(distances[column]), bool(matches[column])
        if query.is_flat or collection.flat[column]:
            shared = query.shared(collection.features[row]) if confirm and is_match else None
            is_match = is_match and is_match_of_flat(distance, shared)
            if not is_match:
                continue
        scores[row] = max(scores.get(row, (0.0, False)), (100 * (1 - distance), is_match))
    return scores


def by_features(query: Query, collection: Collection) -> tuple[Scores, NDArray[np.uint32]]:
    """Return the scores of local features above 20, and the words that were looked up."""
    features = query.local()
    candidates = collection.candidates(features.words, VERIFIED)
    scores: Scores = {}
    for row in candidates:
        verification = features.verify(collection.features[row])
        if verification and verification.score > _KEPT_SCORE:
            is_pair_flat = query.is_flat or row in collection.flat_rows
            scores[row] = verification.score, verification.score >= (FLAT_SCORE if is_pair_flat else 100 * (1 - CUTOFF))
    return scores, features.words


def search(query: Query, collection: Collection) -> tuple[dict[str, Scores], NDArray[np.uint32]]:
    """Return the scores in each mode, and of local features only; and the words that were looked up."""
    fast = by_signature(query, collection, confirm=False)
    confirmed = by_signature(query, collection, confirm=True)
    local, words = by_features(query, collection)
    both = {row: max(confirmed.get(row, (0.0, False)), local.get(row, (0.0, False))) for row in confirmed | local}
    is_sure = any(score >= SURE for score, _ in confirmed.values())
    return {
        "fast": fast,
        "auto": confirmed if is_sure else both,
        "thorough": both,
        "local features": local,
    }, words
