"""Pixels by decoders that share no code with the service's: libvips (libspng, libnsgif, its own TIFF) and OpenCV."""

import cv2
import numpy as np
import pyvips
from numpy.typing import NDArray

from common.errors import ImageError
from common.images.decode import Limits, decode

_WHOLE = Limits(draft_px=0)
_BY_OPENCV = (b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")


def independent_pixels(data: bytes) -> list[NDArray[np.uint8]]:
    """Return upright RGB pixels on white, and on black; empty if the independent decoder rejects the file."""
    return _by_opencv(data) if data.startswith(_BY_OPENCV) else _by_vips(data)


def difference(data: bytes) -> float | str:
    """Return the mean difference of the decoder's pixels to the independent ones, or the reason for no comparison.

    The background of transparent parts is the decoder's choice.
    """
    others = independent_pixels(data)
    try:
        pixels = decode(data, _WHOLE).pixels
    except ImageError as error:
        return error.code if others else "both reject it"
    if not others:
        return "only the independent decoder rejects it"
    if others[0].shape != pixels.shape:
        return "other size"
    return min(float(np.abs(other.astype(int) - pixels).mean()) for other in others)


def _by_vips(data: bytes) -> list[NDArray[np.uint8]]:
    try:
        image = pyvips.Image.new_from_buffer(data, "", fail_on="truncated").autorot().colourspace("srgb")
        flat = [image.flatten(background=[level] * 3) if image.hasalpha() else image for level in (255, 0)]
        return [np.asarray(one.cast("uchar").numpy())[..., :3] for one in flat]
    except pyvips.Error:
        return []


def _by_opencv(data: bytes) -> list[NDArray[np.uint8]]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return []
    return [] if pixels is None else [np.asarray(pixels, dtype=np.uint8)]
