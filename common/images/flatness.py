"""Flat and regular content: signatures that say too little, and the stricter rules by which they match.

Text pages, forms, icons and charts are mostly of one colour. Few of their 272 values differ from zero, and those lie
where all images of their kind have ink. Unrelated ones are as near as photographs never are. Their copies, on the
other hand, are further away than those of photographs. A sketch of the stored image decides between the two.

Balls, fruits and plates on white have values that hardly change from box to box, for all of them in the same way. Half
of the pairs are nearer than the cutoff of photographs, but copies are much nearer.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from common.images.local_features.features import LocalFeatures
from common.images.local_features.geometry import Transform
from common.images.local_features.sketches import Sketch, SmallCopy
from common.images.orientations import ORIENTATIONS, UPRIGHT
from common.images.signature import FIRST, GRID, LENGTH, SECOND, Signature, is_featureless

FLAT_VALUES = 0.86
"""Share of values that differ from zero, below which a signature is one of flat content. Of photographs, 12 % are."""
FLAT_CUTOFF = 0.25
"""The cutoff for the distance of two signatures, of which one is flat. Where there is a sketch, it decides."""
BARE_VALUES = 0.7
"""Share of values that differ from zero, below which a signature is one of bare content. No photograph's is."""
BARE_REACH = 0.6
"""Copies of bare images, such as badges, have signatures as far away as this: a sketch confirms them."""
SKETCHES_COMPARED = 80
"""So many of the images nearest by signature are compared with a query by their sketches: 40 milliseconds."""
DRAWN_CANDIDATE_SCORE = 40
"""Local features of a drawn image with this score make it a candidate, whose sketch decides."""
FLAT_SCORE = 75
"""The cutoff for the score of local features if both images have flat signatures: forms and apps share symbols."""

REGULAR_CUTOFF = 0.15
"""The cutoff for the distance of two signatures that both are most regular. JPEG and half the size move them by 0.1."""

# Two signatures of the first regularity have the cutoff of photographs, of which 2 % are above; of the second, 0.15.
_REGULAR, _MOST_REGULAR = 0.5, 0.6
_USUAL_CUTOFF = 0.45
_SMOOTH = 0.8
# A difference of 1, the largest of copies, scores 55.
_DRAWN_SLOPE = 45
_SMALL_TURN = 0.03
# Differences up to this are computed again, with the map shifted by a share of the longer side.
_NEARLY = 2.0
_SHIFT = 1 / 500
_QUARTERS = 4
# Points of a turned image, from 0 to 1 along each side, before a quarter turn clockwise, and before mirroring.
_BACK = np.array([(0, 1, 0), (-1, 0, 1), (0, 0, 1)], dtype=np.float64)
_MIRROR = np.array([(-1, 0, 1), (0, 1, 0), (0, 0, 1)], dtype=np.float64)


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


def filled(signatures: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return for each of `signatures` (..., 272) the share of values that differ from zero."""
    result: NDArray[np.float64] = np.count_nonzero(signatures, axis=-1) / LENGTH
    return result


def is_flat(signature: Signature) -> bool:
    """Return whether a signature is one of flat content."""
    return bool(filled(signature) < FLAT_VALUES)


def is_bare(signatures: Iterable[Signature]) -> bool:
    """Return whether a query with these signatures has so few values that its copies are far away by signature."""
    return any(filled(signature) < BARE_VALUES for signature in signatures)


def regularity(signatures: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return for each of `signatures` (..., 272) how little it changes from box to box: from -1 to 1, or 0 if empty."""
    values = signatures.astype(np.float64)
    one, other = values[..., _ONE], values[..., _OTHER]
    norm = np.sqrt((one * one).sum(axis=-1) * (other * other).sum(axis=-1))
    result: NDArray[np.float64] = (one * other).sum(axis=-1) / np.where(norm > 0, norm, 1)
    return result


def is_smooth(signature: Signature) -> bool:
    """Return whether a signature is that of a smooth gradient, which counts as featureless.

    Its values hardly change from box to box: those of different gradients are as near as copies.
    """
    return bool(regularity(signature) > _SMOOTH)


def sure_below(queries: NDArray[np.int8], rows: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return the distance below which each of `rows` (k, 272) surely is like the `queries` (m, 272) of one image.

    It is infinite where no stricter rule than that of photographs holds. Beyond it, a sketch has to confirm a match.
    """
    result = np.full(len(rows), np.inf)
    is_query_flat = (filled(queries) < FLAT_VALUES).any()
    result[is_query_flat | (filled(rows) < FLAT_VALUES)] = FLAT_CUTOFF
    most = regularity(queries).max()
    if most > _REGULAR:
        both = np.minimum(regularity(rows), most)
        cutoffs = np.interp(both, (_REGULAR, _MOST_REGULAR), (_USUAL_CUTOFF, REGULAR_CUTOFF))
        result = np.where(both > _REGULAR, np.minimum(result, cutoffs), result)
    return result


def is_searchable(signature: Signature) -> bool:
    """Return whether a search can use a signature: it is neither all zeros nor that of a smooth gradient."""
    return not (is_featureless(signature) or is_smooth(signature))


def are_featureless(signatures: Iterable[Signature]) -> bool:
    """Return whether an image with these signatures counts as featureless: no search returns it."""
    return not any(map(is_searchable, signatures))


def drawn_score(
    copy: SmallCopy,
    target: LocalFeatures,
    *,
    transform: Transform | None = None,
    orientation: str = ORIENTATIONS[0],
) -> float | None:
    """Return the score from 0 to 100 of a stored drawn image: how nearly a query equals its sketch. 55 is the cutoff.

    It replaces the scores of signatures and of local features, which are as high for other texts as for copies. The
    query is turned by `orientation` and compared as a whole, or compared under `transform` and in the orientation
    nearest to it: the better score counts. None for an image without a sketch, whose other scores are right.
    """
    if target.sketch is None:
        return None
    size = target.width, target.height
    mapped = math.inf
    if transform is not None:
        matrix = transform.matrix
        orientation = _nearest_orientation(matrix, size, copy)
        mapped = _least_difference(copy, target.sketch, size, _unturned(matrix, size))
    turned = copy.inverted() if ORIENTATIONS.index(orientation) >= UPRIGHT else copy
    whole = turned.difference(target.sketch, size, _whole(orientation, size, copy))
    return max(0.0, 100 - _DRAWN_SLOPE * min(mapped, whole))


def _least_difference(copy: SmallCopy, sketch: Sketch, size: tuple[int, int], matrix: NDArray[np.float64]) -> float:
    """Return the least difference near a map, whose error of a few pixels counts where letters are as small."""
    difference = copy.difference(sketch, size, matrix)
    if not 1 < difference < _NEARLY:
        return difference
    step = _SHIFT * max(size) * math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    shifts = [np.array([(0, 0, across), (0, 0, down)]) for across in (-step, 0, step) for down in (-step, 0, step)]
    return min(copy.difference(sketch, size, matrix + shift) for shift in shifts)


def _unturned(matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the map without a rotation that is so small that it is likelier to be an error."""
    linear = np.diag(np.diag(matrix[:, :2]))
    if np.abs(matrix[:, :2] - linear).max() > _SMALL_TURN * np.abs(linear).min():
        return matrix
    centre = np.array(size) / 2
    return np.column_stack([linear, matrix[:, 2] + (matrix[:, :2] - linear) @ centre])


def _whole(orientation: str, size: tuple[int, int], copy: SmallCopy) -> NDArray[np.float64]:
    """Return the matrix (2, 3) from a stored image of `size` to the whole query, which `orientation` turns into it."""
    index = ORIENTATIONS.index(orientation) % UPRIGHT
    unit = np.linalg.matrix_power(_BACK, index % _QUARTERS)
    if index >= _QUARTERS:
        unit = _MIRROR @ unit
    to = np.diag([copy.width, copy.height, 1.0])
    matrix: NDArray[np.float64] = (to @ unit @ np.diag([1 / size[0], 1 / size[1], 1.0]))[:2]
    return matrix


def _nearest_orientation(matrix: NDArray[np.float64], size: tuple[int, int], copy: SmallCopy) -> str:
    """Return the orientation, not of a negative, whose map of the whole image is nearest to `matrix`."""
    width, height = size
    corners = np.array([(0, 0, 1), (width, 0, 1), (0, height, 1), (width, height, 1)], dtype=np.float64).T
    return min(
        ORIENTATIONS[:UPRIGHT],
        key=lambda orientation: float(np.abs((matrix - _whole(orientation, size, copy)) @ corners).max()),
    )
