"""The part of decoding that OpenCV does in less time than Pillow, with equal pixels: most JPEGs, and turning."""

import functools
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from common.images.jpeg_outline import Outline

_GREY, _COLOURS = 1, 3
# Without the bit of a colour, the flag of a grey draft is the flag of the scale.
_SCALES = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

# OpenCV copies a band before it changes it; the copy of a small one fits into a core's cache.
_BAND_PX = 32_768

_TRANSPOSE = Image.Transpose
_TURNS: dict[Image.Transpose, Callable[[NDArray[np.uint8]], object]] = {
    _TRANSPOSE.FLIP_LEFT_RIGHT: functools.partial(cv2.flip, flipCode=1),
    _TRANSPOSE.FLIP_TOP_BOTTOM: functools.partial(cv2.flip, flipCode=0),
    _TRANSPOSE.ROTATE_90: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_90_COUNTERCLOCKWISE),
    _TRANSPOSE.ROTATE_180: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_180),
    _TRANSPOSE.ROTATE_270: functools.partial(cv2.rotate, rotateCode=cv2.ROTATE_90_CLOCKWISE),
    _TRANSPOSE.TRANSPOSE: cv2.transpose,
    _TRANSPOSE.TRANSVERSE: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
}


def jpeg_pixels(image: JpegImagePlugin.JpegImageFile, data: bytes, outline: Outline) -> NDArray[np.uint8] | None:
    """Return the RGB pixels (height, width, 3) of an opened image, or of its draft, as stored.

    Return None for an image that only Pillow can decode, or whose error only Pillow can name. Both libraries use
    libjpeg-turbo with the same options, so that the pixels are equal, also where the compressed data is damaged.
    """
    # OpenCV ignores errors after the last row of pixels. With this end there are none: a progressive image is read to
    # its end before the first row, and nothing follows the scan of another.
    if image.layers not in {_GREY, _COLOURS} or not outline.ends_after_scans(data):
        return None
    _prepare()
    scale = image.decoderconfig[0] if image.decoderconfig else 1
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | _SCALES[scale]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    # A missing end makes the decoder stop, and OpenCV return nothing.
    if pixels is None or pixels.shape != (image.height, image.width, _COLOURS):
        return None
    return _exchange_red_and_blue(np.asarray(pixels, dtype=np.uint8))


def turned(pixels: NDArray[np.uint8], turn: Image.Transpose | None) -> NDArray[np.uint8]:
    """Return the pixels after the turn, equal to Pillow's."""
    return pixels if turn is None else np.asarray(_TURNS[turn](pixels), dtype=np.uint8)


def _exchange_red_and_blue(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn BGR into RGB in place. With IMREAD_COLOR_RGB the decoder would do it in several times the time."""
    rows = max(1, _BAND_PX // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        band = pixels[top : top + rows]
        cv2.cvtColor(band, cv2.COLOR_BGR2RGB, dst=band)
    return pixels


@functools.cache
def _prepare() -> None:
    """Set up OpenCV for this process, at the first image rather than at import."""
    # One process per core is busy already; more threads would only compete.
    cv2.setNumThreads(1)
    # Each error is found in the result, and its text may contain paths.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
