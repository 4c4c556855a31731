"""Local features of an image: where each is, its size and direction, and its visual word; and their stored form."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.images.local_features.sketches import InvalidSketch, Sketch
from common.images.local_features.words import WORD_BITS

MAX_FEATURES = 180
"""Features stored for an image."""
FEW_FEATURES = 30
"""Searches may miss an image with fewer features than this."""

VERSION = 2
"""The algorithm and centres of the words, and the layout of the stored form: other versions are not comparable."""

_HEADER = struct.Struct(">BBII")
# Column and row of the centre; then from the highest bit on: direction, size, mirror form and word.
_FEATURE = np.dtype([("x", "u1"), ("y", "u1"), ("rest", ">u4")])
_STEPS = 256
_ANGLE_STEPS = 64
# Sizes are stored as logarithms: 4.5 steps for each doubling, from a 128th of the longer side.
_SIZE_STEPS = 32
_STEPS_PER_OCTAVE = 4.5
_SMALLEST_SIZE = 1 / 128
_MIRROR_BIT = 1 << WORD_BITS
# The values of the steps.
_CENTRES = (np.arange(_STEPS) + 0.5) / _STEPS
_ANGLES = (np.arange(_ANGLE_STEPS) + 0.5) / _ANGLE_STEPS * 2 * np.pi
_SIZES = _SMALLEST_SIZE * 2 ** ((np.arange(_SIZE_STEPS) + 0.5) / _STEPS_PER_OCTAVE)
# The longest side of a PNG: an image of one line may have as many pixels as the decoder accepts.
_MAX_SIDE_PX = 2**31 - 1


class InvalidFeatures(ValueError):
    """The bytes are not encoded local features of this version."""


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """Keypoints of n features: the centre `x`, `y` and `size` in pixels of the full image, and `angle` in radians.

    Each is (n,).
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    size: NDArray[np.float64]
    angle: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the keypoints of all parts, in their order."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "size", "angle")))

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the keypoints at these indices, or where a mask is true."""
        return type(self)(self.x[rows], self.y[rows], self.size[rows], self.angle[rows])


@dataclass(frozen=True, slots=True, eq=False)
class LocalFeatures:
    """The features of an image of `width` and `height` pixels.

    `words` (n,) are sorted; `mirrored` (n,) is whether a patch was mirrored to name it. Drawn images have a `sketch`.
    """

    keypoints: Keypoints
    words: NDArray[np.uint32]
    mirrored: NDArray[np.bool_]
    width: int
    height: int
    sketch: Sketch | None = None

    @property
    def are_few(self) -> bool:
        """Whether searches may miss the image."""
        return len(self.words) < FEW_FEATURES

    def encode(self) -> bytes:
        """Return the stored form: 10 bytes, 6 for each feature, and the sketch."""
        relative = np.maximum(self.keypoints.size / max(self.width, self.height), _SMALLEST_SIZE)
        angle = np.floor(self.keypoints.angle / (2 * np.pi) * _ANGLE_STEPS).astype(np.int64) % _ANGLE_STEPS
        size = _quantise(_STEPS_PER_OCTAVE * np.log2(relative / _SMALLEST_SIZE), _SIZE_STEPS)
        rows = np.empty(len(self.words), dtype=_FEATURE)
        rows["x"] = _quantise(self.keypoints.x / self.width * _STEPS, _STEPS)
        rows["y"] = _quantise(self.keypoints.y / self.height * _STEPS, _STEPS)
        rows["rest"] = (angle * _SIZE_STEPS + size) * 2 * _MIRROR_BIT + self.mirrored * _MIRROR_BIT + self.words
        sketch = self.sketch.encode() if self.sketch else b""
        return _HEADER.pack(VERSION, len(self.words), self.width, self.height) + rows.tobytes() + sketch

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the features in `data`. Raises InvalidFeatures for bytes that `encode` does not return."""
        if len(data) < _HEADER.size:
            raise InvalidFeatures(f"local features have at least {_HEADER.size} bytes, not {len(data)}")
        version, count, width, height = _HEADER.unpack_from(data)
        if version != VERSION:
            raise InvalidFeatures(f"local features of version {version}; supported: {VERSION}")
        if count > MAX_FEATURES or len(data) < _HEADER.size + _FEATURE.itemsize * count:
            raise InvalidFeatures(f"{len(data)} bytes for {count} local features; at most {MAX_FEATURES} are accepted")
        if not (0 < width <= _MAX_SIDE_PX and 0 < height <= _MAX_SIDE_PX):
            raise InvalidFeatures(f"local features of an image of {width} by {height} pixels")
        rows = np.frombuffer(data, dtype=_FEATURE, count=count, offset=_HEADER.size)
        return cls._from_rows(rows, width, height, data[_HEADER.size + rows.nbytes :])

    @classmethod
    def decode_comparable(cls, data: bytes | None) -> Self | None:
        """Return the features in `data`; None without them, or if they are not comparable: those of another version."""
        try:
            return None if data is None else cls.decode(data)
        except InvalidFeatures:
            return None

    @classmethod
    def _from_rows(cls, rows: NDArray[np.void], width: int, height: int, sketch: bytes) -> Self:
        words = _words(rows)
        if (words[1:] < words[:-1]).any():
            raise InvalidFeatures("the words of local features are not sorted")
        rest = rows["rest"].astype(np.uint32)
        upper = rest >> (WORD_BITS + 1)
        keypoints = Keypoints(
            x=_CENTRES[rows["x"]] * width,
            y=_CENTRES[rows["y"]] * height,
            size=_SIZES[upper & (_SIZE_STEPS - 1)] * max(width, height),
            angle=_ANGLES[upper // _SIZE_STEPS],
        )
        mirrored = (rest & _MIRROR_BIT) > 0
        try:
            return cls(keypoints, words, mirrored, width, height, Sketch.decode(sketch) if sketch else None)
        except InvalidSketch as error:
            raise InvalidFeatures(str(error)) from error


def encoded_words(encoded: Sequence[bytes]) -> tuple[NDArray[np.intp], NDArray[np.uint32]]:
    """Return the number of features of each image, and the words of all: 50 times as fast as to decode each.

    Encoded features of another version count as none.
    """
    counts = np.array([data[1] if data[0] == VERSION else 0 for data in encoded], np.intp)
    sizes = (_FEATURE.itemsize * counts).tolist()
    bodies = [data[_HEADER.size : _HEADER.size + size] for data, size in zip(encoded, sizes, strict=True)]
    return counts, _words(np.frombuffer(b"".join(bodies), _FEATURE))


def _words(rows: NDArray[np.void]) -> NDArray[np.uint32]:
    """Return the word of each feature."""
    return (rows["rest"] & (_MIRROR_BIT - 1)).astype(np.uint32)


def _quantise(values: NDArray[np.float64], steps: int) -> NDArray[np.int64]:
    """Return the steps, from 0 to one less than `steps`, that `values` are in."""
    return np.clip(np.floor(values), 0, steps - 1).astype(np.int64)
