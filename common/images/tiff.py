"""TIFF: grey variants that Pillow does not decode, or decodes inverted or signed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from common.errors import ImageError

_II, _MM = b"II", b"MM"
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_UNSIGNED, _SIGNED = (1,), (2,)
_UNSIGNED_32 = ((32,), _UNSIGNED)
# Offsets and sizes of strips, and of tiles.
_PIECES = (
    (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS),
    (TiffImagePlugin.TILEOFFSETS, TiffImagePlugin.TILEBYTECOUNTS),
)
# A file may lack either tag. Pillow's defaults.
_DEFAULT_BITS, _DEFAULT_FORMAT, _DEFAULT_PHOTOMETRIC = (1,), _UNSIGNED, _WHITE_IS_ZERO


def register_variants() -> None:
    """Extend Pillow's table of variants: WhiteIsZero at all depths, 32 bits in both byte orders."""
    TiffImagePlugin.OPEN_INFO.update(
        {(order, photometric, form, 1, (bits,), ()): modes for order, photometric, form, bits, modes in _variants()}
    )


def _variants() -> list[tuple[bytes, int, tuple[int], int, tuple[str, str]]]:
    return [
        (_II, _WHITE_IS_ZERO, _UNSIGNED, 12, ("I;16", "I;12")),
        (_MM, _BLACK_IS_ZERO, _UNSIGNED, 12, ("I;16", "I;12")),
        (_MM, _WHITE_IS_ZERO, _UNSIGNED, 12, ("I;16", "I;12")),
        (_MM, _WHITE_IS_ZERO, _UNSIGNED, 16, ("I;16B", "I;16B")),
        (_II, _WHITE_IS_ZERO, _SIGNED, 16, ("I", "I;16S")),
        (_MM, _WHITE_IS_ZERO, _SIGNED, 16, ("I", "I;16BS")),
        *((_II, photometric, _UNSIGNED, 32, ("I", "I;32S")) for photometric in (0, 1)),
        *((_MM, photometric, _UNSIGNED, 32, ("I", "I;32BS")) for photometric in (0, 1)),
        (_II, _WHITE_IS_ZERO, _SIGNED, 32, ("I", "I;32S")),
        (_MM, _WHITE_IS_ZERO, _SIGNED, 32, ("I", "I;32BS")),
    ]


def check_pieces(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Raise ImageError (truncated_image) if a compressed strip or tile ends after the file.

    libtiff leaves some of them blank without an error. Pillow itself reads uncompressed ones, and reports lost data.
    """
    if not image.use_load_libtiff:
        return
    tags = image.tag_v2
    for offsets, sizes in _PIECES:
        for offset, size in zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False):
            if offset + size > len(data):
                raise ImageError("the TIFF image is truncated", code="truncated_image")


def wide_values(rows: Image.Image, image: Image.Image) -> NDArray[Any]:
    """Return the stored values (height, width) of rows of a loaded image; Pillow reads those of 32 bits as signed."""
    values = np.array(rows)
    return values.view(np.uint32) if _tag(image) == _UNSIGNED_32 else values


def is_white_zero(image: Image.Image) -> bool:
    """Return whether 0 is white in a wide image: Pillow inverts only those of up to eight bits."""
    tags = getattr(image, "tag_v2", None)
    return tags is not None and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, _DEFAULT_PHOTOMETRIC) == 0


def _tag(image: Image.Image) -> tuple[object, object]:
    tags = getattr(image, "tag_v2", {})
    return (
        tags.get(TiffImagePlugin.BITSPERSAMPLE, _DEFAULT_BITS),
        tags.get(TiffImagePlugin.SAMPLEFORMAT, _DEFAULT_FORMAT),
    )
