"""Bounds on the parts of an image file, checked before a decoder reads them one by one in Python.

A part is a segment, chunk, block, comment, tag or strip. Each costs Pillow microseconds, so that a file of some
megabytes with nothing but parts occupies a process for minutes. The limits are far above those of real files: a JPEG of
a camera has some tens of segments, and every writer fills the parts of a large file.

WebP, AVIF and HEIF are not checked: their libraries are written in C and read a million boxes in a tenth of a second.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from common.images.bounds import bmp, gif, jpeg, png, pnm, tiff

_CHECKS: Mapping[str, Callable[[bytes], None]] = {
    "JPEG": jpeg.check,
    "PNG": png.check,
    "GIF": gif.check,
    "TIFF": tiff.check,
    "BMP": bmp.check,
    "PPM": pnm.check,
}


def check_bounds(data: bytes, formats: Sequence[str]) -> None:
    """Raise ImageError (unsupported_format) for a file of far more parts than any real one has.

    `formats` are those that `data` may have. A broken file passes: the decoder reports what is wrong with it.
    """
    # A part that is cut off by the end of the file ends the check.
    with suppress(struct.error, IndexError):
        for name in formats:
            if name in _CHECKS:
                _CHECKS[name](data)
