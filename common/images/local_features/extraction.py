"""Pixels to local features: SIFT keypoints, spread over the image, with their descriptors and words.

Keypoints and descriptors are those of Lowe, "Distinctive image features from scale-invariant keypoints" (IJCV 2004),
computed by OpenCV. Its standard call describes each point at the resolution where it was found, which is most of its
cost. Here points are found in a small image. A separate one describes them, at the lowest resolution that still
resolves the patch. The blur is in proportion to the patch, so that its descriptor is the same in a larger image.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from common.images.local_features.drawing import Area, draw, drawn_content, shrink_area, to_grey
from common.images.local_features.features import MAX_FEATURES, Keypoints, LocalFeatures
from common.images.local_features.geometry import QueryFeatures
from common.images.local_features.words import DESCRIPTOR_LENGTH, Vocabulary, shipped_vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The longer side in pixels to find keypoints at, and how many of them are kept.

    `sigma` is the blur in which the smallest keypoints are found, in pixels of the doubled image. A lower one than
    Lowe's 1.6 finds keypoints of the same size in a smaller image, at less cost and a little less precisely.
    """

    px: int
    features: int
    sigma: float = 1.28


@dataclass(frozen=True, slots=True)
class Resolution:
    """The longer side in pixels to describe keypoints at, and how they are found."""

    describe_px: int
    detections: tuple[Detection, ...]


STORED = Resolution(224, (Detection(px=160, features=MAX_FEATURES),))
DRAWN = Resolution(400, (Detection(px=320, features=140, sigma=1.6),))
"""For drawn images (see `sketches`): letters are small."""
QUERY = Resolution(400, (Detection(px=320, features=750), Detection(px=128, features=150)))
"""In screenshots and collages a stored image is small: queries need more resolution, and more features.

In a crop it is large, and its stored features are too coarse for the first detection. The sum of both numbers is the
limit of words in a lookup (`common.store.base.WORDS_MAX`).
"""

_SMALLEST_PX = 16
# Smaller images are enlarged, because OpenCV's borders of 5 pixels would cover them.
_MAX_ENLARGEMENT = 2.0
# Octaves are divided into two scales to find keypoints, not Lowe's three: a sixth less cost, and the same recall.
_SCALES = 2
# Lowe's is 0.04. Weak points are kept, because an image with few strong ones needs them.
_CONTRAST = 0.008
_EDGE = 12.0
# Blur of the image that patches are described in, for keypoints of this size in it. For larger ones the blur grows in
# steps, three of which are an octave with half of the resolution.
_DESCRIBED_SIGMA = 0.85
_DESCRIBED_POINT_PX = 2.4
_BLUR_STEPS = 3
# The strongest points, from which those that are spread over the image are chosen.
_POOL = 2
# Cells along each side of the grid over which keypoints are spread.
_GRID = 8
# OpenCV's responses are up to about 0.1: keeps the weight of a weak point finite.
_WEAKEST = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """Keypoints of an image, in pixels of the full image, and their descriptors (n, 128)."""

    keypoints: Keypoints
    descriptors: NDArray[np.uint8]


def extract(pixels: NDArray[np.uint8], *, width: int, height: int) -> LocalFeatures:
    """Return the features to store of RGB `pixels` (rows, columns, 3), of an image of `width` by `height` pixels."""
    grey = to_grey(pixels)
    area = drawn_content(grey)
    described = _describe_area(grey, area, DRAWN if area else STORED, width=width, height=height)
    features = name(described, shipped_vocabulary(), width=width, height=height)
    if area is None:
        return features
    rows, columns = grey.shape
    return replace(features, sketch=draw(shrink_area(pixels, area, width=columns, height=rows)))


def extract_query(pixels: NDArray[np.uint8], *, width: int, height: int) -> QueryFeatures:
    """Return the features of a query with RGB `pixels` (rows, columns, 3), of `width` by `height` pixels."""
    grey = to_grey(pixels)
    area = drawn_content(grey)
    described = _describe_area(grey, area, QUERY, width=width, height=height)
    lookup = shipped_vocabulary().lookup_words(described.descriptors)
    return QueryFeatures(described.keypoints, lookup, width=width, height=height)


def name(described: Described, vocabulary: Vocabulary, *, width: int, height: int) -> LocalFeatures:
    """Return features with their words, in the order of words."""
    words, mirrored = vocabulary.words(described.descriptors)
    order = np.argsort(words, kind="stable")
    return LocalFeatures(described.keypoints.take(order), words[order], mirrored[order], width, height)


def describe(pixels: NDArray[np.uint8], resolution: Resolution, *, width: int, height: int) -> Described:
    """Return the strongest keypoints of RGB `pixels` (rows, columns, 3), with descriptors."""
    grey = to_grey(pixels)
    return _describe_area(grey, drawn_content(grey), resolution, width=width, height=height)


def _describe_area(
    grey: NDArray[np.uint8], area: Area | None, resolution: Resolution, *, width: int, height: int
) -> Described:
    """Return the keypoints of `grey`, of a drawn image those of its content, which gets all the pixels then."""
    across, down = width / grey.shape[1], height / grey.shape[0]
    top, left = 0, 0
    if area is not None:
        rows, columns = area
        top, left = rows.start, columns.start
        grey = grey[rows, columns]
    described = _resize(grey, resolution.describe_px)
    points, descriptors = _describe(
        np.concatenate([_find(described, each) for each in resolution.detections]), described
    )
    across_content, down_content = grey.shape[1] / described.shape[1], grey.shape[0] / described.shape[0]
    keypoints = Keypoints(
        x=(points[:, 0] * across_content + left) * across,
        y=(points[:, 1] * down_content + top) * down,
        size=points[:, 2] * max(across_content * across, down_content * down),
        angle=np.deg2rad(points[:, 3]),
    )
    return Described(keypoints, descriptors)


@functools.cache
def _sift(pool: int, scales: int, sigma: float) -> cv2.SIFT:
    """Return SIFT for the strongest `pool` keypoints from a blur of `sigma` on; all of them for a `pool` of 0."""
    # Each process computes one image at a time on its core: more threads would only compete.
    cv2.setNumThreads(1)
    return cv2.SIFT.create(pool, scales, _CONTRAST, _EDGE, sigma)


def _resize(grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return `grey` with its longer side of `side` pixels, or enlarged twice if that is less."""
    factor = min(side / max(grey.shape), _MAX_ENLARGEMENT)
    rows, columns = (max(_SMALLEST_PX, round(length * factor)) for length in grey.shape)
    # OpenCV averages whole pixels in a fifth of the time of fractions: those are left to interpolation.
    if (whole := int(1 / factor)) > 1:
        shape = [max(_SMALLEST_PX, length // whole) for length in grey.shape]
        grey = np.asarray(cv2.resize(grey, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if (rows, columns) == grey.shape:
        return grey
    return np.asarray(cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _find(image: NDArray[np.uint8], detection: Detection) -> NDArray[np.float64]:
    """Return (n, 5): column, row and size in pixels of `image`, angle in degrees and response of its keypoints."""
    searched = _resize(image, detection.px)
    points = _distinct(_sift(detection.features * _POOL, _SCALES, detection.sigma).detect(searched, None))
    points = points[_spread(points, searched.shape, detection.features)]
    points[:, :3] *= image.shape[1] / searched.shape[1]
    return points


def _distinct(points: Sequence[cv2.KeyPoint]) -> NDArray[np.float64]:
    """Return (n, 5): column, row, size, angle in degrees and response, once for each position.

    OpenCV returns a point again for each further direction of its patch.
    """
    rows = np.array([(*point.pt, point.size, point.angle, point.response) for point in points], dtype=np.float64)
    rows = rows.reshape(-1, 5)
    _, first = np.unique(rows[:, 0] + 1j * rows[:, 1], return_index=True)
    return rows[first]


def _spread(points: NDArray[np.float64], shape: tuple[int, ...], count: int) -> NDArray[np.intp]:
    """Return the indices of `count` strong points from all parts of the image.

    A point's rank in its cell of a grid counts against it, by the root: a cell of strong points gives some more.
    """
    rows, columns = shape
    cell = (points[:, 1] * _GRID // rows) * _GRID + points[:, 0] * _GRID // columns
    order = np.lexsort((-points[:, 4], cell))
    nth = np.arange(len(order))
    begins = np.diff(cell[order], prepend=-1) != 0
    rank = nth - np.maximum.accumulate(np.where(begins, nth, 0))
    weight = np.sqrt(rank + 1) / (points[order, 4] + _WEAKEST)
    return order[np.argsort(weight, kind="stable")[:count]]


def _describe(points: NDArray[np.float64], image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return the points (n, 5) that could be described in `image`, and their descriptors (n, 128)."""
    if not len(points):
        return points, np.zeros((0, DESCRIPTOR_LENGTH), dtype=np.uint8)
    steps = np.maximum(0, np.floor(_BLUR_STEPS * np.log2(points[:, 2] / _DESCRIBED_POINT_PX))).astype(int)
    octaves, blurs = np.divmod(steps, _BLUR_STEPS)
    # OpenCV packs the octave into the lowest byte, and the layer within it into the next one. Each point carries its
    # index, since OpenCV may omit some.
    asked = [
        cv2.KeyPoint(x, y, size, angle, response, octave, nth)
        for nth, ((x, y, size, angle, response), octave) in enumerate(
            zip(points.tolist(), (octaves | blurs << 8).tolist(), strict=True)
        )
    ]
    answered, descriptors = _sift(0, _BLUR_STEPS, _DESCRIBED_SIGMA).compute(image, asked)
    kept = [point.class_id for point in answered]
    return points[kept], np.clip(np.asarray(descriptors), 0, 255).astype(np.uint8).reshape(-1, DESCRIPTOR_LENGTH)
