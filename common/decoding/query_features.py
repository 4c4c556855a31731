"""The local features and the small copy of a query as bytes, from the decoder process to its owner."""

import struct

import numpy as np

from common.images.local_features.features import Keypoints
from common.images.local_features.geometry import QueryFeatures
from common.images.local_features.sketches import SmallCopy
from common.images.local_features.words import LookupWords

_COUNTS = struct.Struct("<II")
_HEAD = struct.Struct("<4d4I")


def pack_query(features: QueryFeatures) -> bytes:
    """Return the features as bytes."""
    keypoints, lookup = features.keypoints, features.lookup
    return b"".join(
        (
            _COUNTS.pack(len(keypoints.x), len(lookup.word)),
            np.stack([keypoints.x, keypoints.y, keypoints.size, keypoints.angle]).astype(np.float64).tobytes(),
            lookup.own.astype(np.uint32).tobytes(),
            lookup.feature.astype(np.uint32).tobytes(),
            lookup.word.astype(np.uint32).tobytes(),
            lookup.mirrored.astype(np.bool_).tobytes(),
        )
    )


def unpack_query(data: bytes, *, width: int, height: int) -> QueryFeatures:
    """Return the features of an image of `width` by `height` pixels; raises ValueError for invalid bytes."""
    features, words = _COUNTS.unpack_from(data)
    values = np.frombuffer(data, np.float64, 4 * features, _COUNTS.size).reshape(4, features)
    after = _COUNTS.size + values.nbytes
    own, feature, word = np.split(np.frombuffer(data, np.uint32, features + 2 * words, after), [features, -words])
    mirrored = np.frombuffer(data, np.bool_, words, after + 4 * (features + 2 * words))
    if words and (not features or feature.max() >= features):
        message = f"{features} local features of a query, but words of others"
        raise ValueError(message)
    lookup = LookupWords(own, feature.astype(np.intp), word, mirrored)
    return QueryFeatures(Keypoints(*values), lookup, width=width, height=height)


def pack_small_copy(copy: SmallCopy) -> bytes:
    """Return the small copy as bytes."""
    rows, columns, _ = copy.pixels.shape
    head = _HEAD.pack(copy.x, copy.y, copy.step_x, copy.step_y, copy.width, copy.height, rows, columns)
    return head + copy.pixels.tobytes()


def unpack_small_copy(data: bytes) -> SmallCopy:
    """Return the small copy in `data`; raises ValueError for invalid bytes."""
    x, y, step_x, step_y, width, height, rows, columns = _HEAD.unpack_from(data)
    pixels = np.frombuffer(data, np.uint8, offset=_HEAD.size).reshape(rows, columns, 3)
    return SmallCopy(pixels, x, y, step_x, step_y, width, height)
