"""Most JPEGs, decoded without Pillow in less time, with equal pixels."""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from common.images import jpeg, jpeg_end
from common.images.cost import check_jpeg_memory
from common.images.jpeg_header import Header, read_header
from common.images.jpeg_outline import read_outline
from common.images.limits import PIXELS_SETTING, Limits, check_pixels
from common.images.reduction import draft_factor

_GREY, _COLOURS = 1, 3
# The decoder takes the smallest of libjpeg-turbo's scales with the requested sides. In tiny images several have them.
_SMALLEST_DRAFT_PX = 16
_DRAFT, _NEVER = 2, 9
# libjpeg-turbo's warning when a scan has no more data.
_SHORT = "premature end"


def decode_jpeg(data: bytes, limits: Limits) -> tuple[NDArray[np.uint8], Header] | None:
    """Return the RGB pixels (height, width, 3) of a JPEG or of its draft, as stored, and its header.

    Return None for an image that only Pillow can decode, or whose error only Pillow can name. Both libraries use
    libjpeg-turbo with the same options, so that the pixels are equal. Here each of its warnings about damaged or
    missing data is an error. Raises ImageError for an image beyond the limits, and for one without its last data.
    """
    header = read_header(data)
    if header is None or header.colours not in {_GREY, _COLOURS} or not _has_all_scans(header, data):
        return None
    factor = draft_factor(header.size, limits.draft_px)
    if factor > 1 and min(header.size) < _SMALLEST_DRAFT_PX:
        return None
    jpeg.check_sizes(header.size, limits, has_one_scan=header.has_one_scan)
    draft = (-(-header.size[0] // factor), -(-header.size[1] // factor))
    check_pixels(draft, limits.pixels, PIXELS_SETTING)
    check_jpeg_memory(header, draft, data, limits)
    try:
        scale = _NEVER if factor == 1 else _DRAFT
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_width=draft[0], min_height=draft[1], min_factor=scale)
    except ValueError as error:
        if _SHORT in str(error).lower():
            _check_last_scan(data, limits)
        return None
    return np.asarray(pixels, dtype=np.uint8), header


def _has_all_scans(header: Header, data: bytes) -> bool:
    """Return whether the scans have all colours in full precision: libjpeg-turbo does not miss a whole scan."""
    if header.has_one_scan:
        return True
    if not header.is_progressive:
        return False
    jpeg.check_scans(data)
    outline = read_outline(data)
    return outline is not None and outline.has_end and not outline.is_partial


def _check_last_scan(data: bytes, limits: Limits) -> None:
    """Raise ImageError (truncated_image) if the scan without data is the last one. Others are damaged."""
    outline = read_outline(data)
    if outline is not None:
        jpeg_end.check_scan(data, outline, limits)
