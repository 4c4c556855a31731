"""JPEG: drafts of large images, and limits for files of many scans."""

import struct

from PIL import JpegImagePlugin

from common.errors import ImageError
from common.images.limits import JPEG_PIXELS_SETTING, PIXELS_SETTING, Limits, check_pixels

# Progressive JPEGs have about ten scans. Each updates the whole image and may be a few bytes long: without a limit, a
# file of some megabytes keeps the decoder busy for an hour.
_SCANS = 100


def shrink(image: JpegImagePlugin.JpegImageFile, data: bytes, limits: Limits) -> None:
    """Select a draft (a half, a quarter or an eighth) for a large JPEG. Raises ImageError if it is still too large."""
    is_single = has_one_scan(image, data)
    check_sizes(image.size, limits, has_one_scan=is_single)
    if not is_single:
        check_scans(data)
    if limits.draft_px:
        image.draft("RGB", (limits.draft_px, limits.draft_px))


def check_sizes(size: tuple[int, int], limits: Limits, *, has_one_scan: bool) -> None:
    """Raise ImageError for too many pixels in full size."""
    if has_one_scan:
        check_pixels(size, limits.jpeg_pixels, JPEG_PIXELS_SETTING)
    else:
        # With several scans the decoder keeps all coefficients of the full size, also for a draft.
        check_pixels(size, limits.pixels, PIXELS_SETTING)


def check_scans(data: bytes) -> None:
    """Raise ImageError for too many scans."""
    # Compressed data never contains this pair of bytes: it always begins a scan.
    if data.count(b"\xff\xda") > _SCANS:
        message = f"the JPEG image has more than {_SCANS} scans"
        raise ImageError(message, code="unsupported_format")


def has_one_scan(image: JpegImagePlugin.JpegImageFile, data: bytes) -> bool:
    """Return whether the first scan of a JPEG contains all its colours; False if in doubt.

    Pillow has stopped reading after that scan's header.
    """
    header = b"\xff\xda" + struct.pack(">HB", 6 + 2 * image.layers, image.layers)
    begin = image.fp.tell() - 8 - 2 * image.layers if image.fp else 0
    return "progressive" not in image.info and data.startswith(header, max(0, begin))
