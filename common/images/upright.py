"""The orientation that EXIF declares for the stored pixels, and turning them upright."""

import functools
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

_TRANSPOSE = Image.Transpose
# OpenCV takes a fifth of Pillow's time.
_TURNS: dict[Image.Transpose, Callable[[NDArray[np.uint8]], object]] = {
    _TRANSPOSE.FLIP_LEFT_RIGHT: functools.partial(cv2.flip, flipCode=1),
    _TRANSPOSE.FLIP_TOP_BOTTOM: functools.partial(cv2.flip, flipCode=0),
    _TRANSPOSE.ROTATE_90: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_90_COUNTERCLOCKWISE),
    _TRANSPOSE.ROTATE_180: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_180),
    _TRANSPOSE.ROTATE_270: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_90_CLOCKWISE),
    _TRANSPOSE.TRANSPOSE: cv2.transpose,
    _TRANSPOSE.TRANSVERSE: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
}
# The operation that turns the stored pixels upright, by EXIF orientation.
_OPERATIONS: dict[object, Image.Transpose] = {
    2: _TRANSPOSE.FLIP_LEFT_RIGHT,
    3: _TRANSPOSE.ROTATE_180,
    4: _TRANSPOSE.FLIP_TOP_BOTTOM,
    5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270,
    7: _TRANSPOSE.TRANSVERSE,
    8: _TRANSPOSE.ROTATE_90,
}
_SIDEWAYS = {_TRANSPOSE.TRANSPOSE, _TRANSPOSE.ROTATE_270, _TRANSPOSE.TRANSVERSE, _TRANSPOSE.ROTATE_90}


def forget_xmp(image: Image.Image) -> None:
    """Remove XMP from an opened image: Pillow would turn a TIFF by it, while it decodes the pixels.

    Editors turn the pixels and leave XMP's orientation unchanged. Browsers ignore it.
    """
    image.info.pop("xmp", None)


def upright_turn(exif: bytes) -> Image.Transpose | None:
    """Return the operation that turns the stored pixels upright; None for pixels that are upright."""
    return _OPERATIONS.get(_orientation(exif)) if exif else None


def turned(pixels: NDArray[np.uint8], turn: Image.Transpose | None) -> NDArray[np.uint8]:
    """Return the pixels after the turn, equal to Pillow's."""
    return pixels if turn is None else np.asarray(_TURNS[turn](pixels), dtype=np.uint8)


def turned_size(size: tuple[int, int], turn: Image.Transpose | None) -> tuple[int, int]:
    """Return the width and height after the turn."""
    return (size[1], size[0]) if turn in _SIDEWAYS else size


def _orientation(exif: bytes) -> object:
    """Return EXIF's orientation. Image.getexif would add that of XMP and of ImageMagick's text chunks."""
    try:
        tags = Image.Exif()
        tags.load(exif)
        return tags.get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises nearly any exception, and the pixels do not depend on it
        return None
