"""Flat content: signatures that say too little, and the stricter rule by which they match.

Text pages, forms, icons and charts are mostly of one colour. Few of their 272 values differ from zero, and those lie
where all images of their kind have ink. Unrelated ones are as near as photographs never are. Their copies, on the
other hand, are further away than those of photographs. Local features decide between the two.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from common.images.signature import FIRST, GRID, LENGTH, SECOND, Signature, is_featureless

FLAT_VALUES = 0.86
"""Share of values that differ from zero, below which a signature is one of flat content. Of photographs, 12 % are."""
FLAT_CUTOFF = 0.25
"""The cutoff for the distance of two signatures, of which one is flat, without local features."""
FLAT_SCORE = 75
"""The cutoff for the score of local features where a signature is flat: forms and apps share letters and symbols."""

_CUTOFF = 0.45
# A confirmed match: distance + weight * (1 - shared) is below the limit.
_SHARED_WEIGHT = 0.4
_SHARED_LIMIT = 0.6
_SMOOTH = 0.8


def _neighbours() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return (n,) twice: the index of a value, and of that for the boxes one to the right, or one down."""
    position = {(first, second - first): nth for nth, (first, second) in enumerate(zip(FIRST, SECOND, strict=True))}
    pairs = [
        (nth, position[first + shift, step])
        for (first, step), nth in position.items()
        for shift in (1, GRID)
        if (first + shift, step) in position
    ]
    one, other = np.array(pairs).T
    return one, other


_ONE, _OTHER = _neighbours()


def filled(signature: Signature) -> float:
    """Return the share of values that differ from zero."""
    return np.count_nonzero(signature) / LENGTH


def is_flat(signature: Signature) -> bool:
    """Return whether a signature is one of flat content."""
    return filled(signature) < FLAT_VALUES


def is_smooth(signature: Signature) -> bool:
    """Return whether a signature is that of a smooth gradient, which counts as featureless.

    Its values hardly change from box to box: those of different gradients are as near as copies.
    """
    values = signature.astype(np.float64)
    one, other = values[_ONE], values[_OTHER]
    norm = np.sqrt((one @ one) * (other @ other))
    return bool(norm > 0 and one @ other > _SMOOTH * norm)


def is_searchable(signature: Signature) -> bool:
    """Return whether a search can use a signature: it is neither all zeros nor that of a smooth gradient."""
    return not (is_featureless(signature) or is_smooth(signature))


def are_featureless(signatures: Iterable[Signature]) -> bool:
    """Return whether an image with these signatures counts as featureless: no search returns it."""
    return not any(map(is_searchable, signatures))


def is_match_of_flat(distance: float, shared: float | None = None) -> bool:
    """Return whether two images match, of which one has a flat signature.

    `shared` is that of the verification of their local features, both extracted at the resolution STORED; without it,
    FLAT_CUTOFF decides.
    """
    if distance < FLAT_CUTOFF or shared is None:
        return distance < FLAT_CUTOFF
    return distance < _CUTOFF and distance + _SHARED_WEIGHT * (1 - shared) < _SHARED_LIMIT
