"""JPEG files without an end marker, and those whose data end early although the decoder reports nothing."""

import re
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ImageChops, ImageFile, JpegImagePlugin

from common.errors import ImageError
from common.images import jpeg
from common.images.jpeg_outline import END, Outline
from common.images.limits import Limits

_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# A scan's data may contain some zero bytes in a row. A preallocated file has pages of them.
_ZEROS = bytes(32)
# Bytes that look like scan data to a decoder that still waits for some, without a marker.
_FILLER = bytes((index * 73 + 41) % 251 for index in range(96))
# Bytes that libjpeg reads ahead at most.
_AHEAD = 8
# libjpeg fills the rest of a scan that ends early with the middle of the scale: a grey, in CMYK a darker one.
_FILLS = {63, 64, 65, 127, 128}


def end_properly(data: bytes, outline: Outline, limits: Limits) -> bytes:
    """Return a JPEG with its end marker, which some programs omit.

    Raises ImageError (truncated_image) if scan data are missing, or if zeros replace them.
    """
    if not outline.has_end:
        if outline.is_partial:
            raise _truncated()
        check_scan(data, outline, limits)
        return _body(data, outline) + END
    if outline.is_partial or data.endswith(_ZEROS, 0, outline.scan_end):
        check_scan(data, outline, limits)
    return data


def check_filled(pixels: NDArray[np.uint8], data: bytes, outline: Outline, limits: Limits) -> None:
    """Raise ImageError (truncated_image) if the decoder filled the end of RGB `pixels` for lack of data.

    Only an image whose last pixel has that grey is decoded again to find out.
    """
    if _FILLS.issuperset(pixels[-1, -1].tolist()):
        check_scan(data, outline, limits)


def check_scan(data: bytes, outline: Outline, limits: Limits) -> None:
    """Raise ImageError (truncated_image) if the last scan's data end early, or if zeros continue them."""
    # After a missing restart marker the decoder skips all data, so that more of them would change nothing.
    if len(_RESTART.findall(data, outline.scan_start, outline.scan_end)) < outline.restarts:
        raise _truncated()
    body = _body(data, outline)
    stripped = body.rstrip(b"\x00")
    if stripped.endswith(b"\xff"):
        stripped += b"\x00"
    if _is_complete(stripped, limits):
        return
    # A flat area may be coded as zeros, all of which count. Zeros in place of lost data are too few or too many.
    is_flat = len(stripped) < len(body) and _is_complete(body, limits) and not _is_complete(body[:-_AHEAD], limits)
    if not is_flat:
        raise _truncated()


def _body(data: bytes, outline: Outline) -> bytes:
    """Return the file up to the end of its last scan, without half of an end marker."""
    return data[: outline.scan_end].removesuffix(b"\xff")


def _is_complete(body: bytes, limits: Limits) -> bool:
    """Return whether the pixels stay the same if more scan data follow: the decoder then needs none."""
    try:
        with _loaded(body + END, limits) as one, _loaded(body + _FILLER + END, limits) as other:
            return ImageChops.difference(one, other).getbbox() is None
    except OSError:
        return False


def _loaded(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    image = JpegImagePlugin.JpegImageFile(BytesIO(data))
    jpeg.shrink(image, data, limits)
    image.load()
    return image


def _truncated() -> ImageError:
    return ImageError("the JPEG image is truncated", code="truncated_image")
