"""The memory that an image takes to decode, estimated from its header.

The numbers are bytes for each pixel, measured with the libraries in the requirements. tests/unit/test_memory.py
compares them with the peak of a process. docs/memory.md has the table.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from PIL import ImageFile, JpegImagePlugin, TiffImagePlugin

from common.errors import ImageError
from common.images.jpeg import has_one_scan
from common.images.jpeg_header import Header
from common.images.limits import Limits
from common.images.reduction import draft_factor

MEMORY_SETTING = "MATCH_DECODE_MEMORY_BYTES"

MIB = 1024 * 1024
# Tables and bands of rows, which do not depend on the size of the image.
FIXED_BYTES = 16 * MIB
# The HEIF library starts a thread, for which the allocator reserves addresses.
_HEIF_ARENA_BYTES = 64 * MIB
# The file itself, and a copy by a library or without needless parts.
_FILES = 2
# A pixel that is left after the reduction: on its background, as an array, turned, and in the signature.
_RENDERED = 14

# A JPEG with several scans: a coefficient for each pixel of each colour.
_COEFFICIENTS = 2

_ONE_BYTE_MODES = {"1", "L", "P"}
_ALPHA_MODES = {"RGBA", "LA", "PA"}
# Two canvases of an animation and its frame, which the WebP library needs for a still image too.
_WEBP = 12
# The previous frame, the canvas and their copies.
_ANIMATION = 8
# AVIF: planes of up to 16 bits in full resolution, and a row-wise copy. Pillow knows no depth before it decodes.
_AVIF, _AVIF_ALPHA = 10, 14
# HEIF: bytes of the planes for a pixel of eight bits, by the subsampling of colours.
_HEIF_PLANES = {420: 1.5, 422: 2.0}
_HEIF_PLANES_MAX = 3.0
_HEIF_COMMON = 420
# PNG: a colour key of 16 bits needs the image once more, and masks.
_DEEP_KEY = 24
_KEY = 5
_PNG_DEPTH = 24
_BYTE_BITS = 8


def check_memory(image: ImageFile.ImageFile, size: tuple[int, int], data: bytes, limits: Limits) -> None:
    """Raise ImageError for an opened image that would take more memory than the limit; `size` is its full size."""
    check_estimate(image.format or "", size, decoding_bytes(image, size, data, limits), limits)


def check_jpeg_memory(header: Header, draft: tuple[int, int], data: bytes, limits: Limits) -> None:
    """Raise ImageError for a JPEG that would take more memory than the limit without Pillow; `draft` is its size."""
    coefficients = 0 if header.has_one_scan else _COEFFICIENTS * header.colours * math.prod(header.size)
    pixels = (_stored("RGB") + _RENDERED) * math.prod(draft)
    check_estimate("JPEG", header.size, FIXED_BYTES + _FILES * len(data) + coefficients + pixels, limits)


def check_webp_memory(size: tuple[int, int], data: bytes, limits: Limits) -> None:
    """Raise ImageError for a WebP whose pixels and canvases take more memory than the limit."""
    pixels = (_WEBP + _stored("RGB")) * math.prod(size)
    check_estimate("WEBP", size, FIXED_BYTES + _FILES * len(data) + pixels, limits)


def check_estimate(name: str, size: tuple[int, int], cost: int, limits: Limits) -> None:
    """Raise ImageError if an image of the format `name` takes more bytes than the limit."""
    if cost > limits.memory_bytes:
        message = (
            f"the {name} image has {size[0]} x {size[1]} pixels, which take {cost:,} bytes to decode; "
            f"the limit is {limits.memory_bytes:,} bytes ({MEMORY_SETTING})"
        )
        raise ImageError(message, code="image_too_large_to_decode")


def decoding_bytes(image: ImageFile.ImageFile, size: tuple[int, int], data: bytes, limits: Limits) -> int:
    """Return the memory to decode an opened image, or its draft, beside that of an idle process."""
    full, loaded = math.prod(size), math.prod(image.size)
    left = loaded / draft_factor(image.size, limits.draft_px) ** 2
    beside = _BESIDE.get(image.format or "", _nothing)(image, data)
    fixed = FIXED_BYTES + (_HEIF_ARENA_BYTES if image.format == "HEIF" else 0)
    return int(fixed + _FILES * len(data) + _stored(image.mode) * loaded + beside * full + _RENDERED * left)


def _stored(mode: str) -> int:
    """Return the bytes of a pixel in Pillow's memory; those of a wide grey one include its eight bits."""
    if mode.startswith("I;16"):
        return 3
    if mode in {"I", "F"}:
        return 5
    return 1 if mode in _ONE_BYTE_MODES else 4


def _nothing(_image: ImageFile.ImageFile, _data: bytes) -> float:
    return 0


def _jpeg(image: ImageFile.ImageFile, data: bytes) -> float:
    """With several scans the decoder keeps the coefficients of all of them, also for a draft."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or has_one_scan(image, data):
        return 0
    return _COEFFICIENTS * image.layers


def _png(image: ImageFile.ImageFile, data: bytes) -> float:
    if "transparency" in image.info and image.mode != "P":
        return _DEEP_KEY if data[_PNG_DEPTH] > _BYTE_BITS and image.mode == "RGB" else _KEY
    return _animation(image, data)


def _animation(image: ImageFile.ImageFile, _data: bytes) -> float:
    return _ANIMATION if getattr(image, "is_animated", False) else 0


def _webp(image: ImageFile.ImageFile, _data: bytes) -> float:
    return _WEBP + _stored("RGB") if getattr(image, "is_animated", False) else _WEBP


def _avif(image: ImageFile.ImageFile, _data: bytes) -> float:
    return _AVIF_ALPHA if image.mode in _ALPHA_MODES else _AVIF


def _heif(image: ImageFile.ImageFile, _data: bytes) -> float:
    channels, chroma = len(image.getbands()), image.info.get("chroma", 0)
    planes = 1.0 if image.mode == "L" else _HEIF_PLANES.get(chroma, _HEIF_PLANES_MAX)
    is_deep = int(image.info.get("bit_depth", 0)) > _BYTE_BITS
    # The library converts deep colours of a higher resolution in one more step.
    steps = 2 if is_deep and chroma != _HEIF_COMMON else 1
    return steps * channels + float(1 + is_deep) * (planes + 2 * (image.mode in _ALPHA_MODES))


def _tiff(image: ImageFile.ImageFile, _data: bytes) -> float:
    """Libtiff decompresses a whole strip at a time, which may be the whole image."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0
    tags: Mapping[int, Any] = image.tag_v2
    bits: tuple[int, ...] = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    channels = int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
    return max(1.0, channels * max(bits) / 8)


def _bmp(image: ImageFile.ImageFile, _data: bytes) -> float:
    # Dropping an empty alpha channel copies the colours.
    return 5 if image.mode == "RGBA" else 0


_BESIDE: Mapping[str, Callable[[ImageFile.ImageFile, bytes], float]] = {
    "JPEG": _jpeg,
    "MPO": _jpeg,
    "PNG": _png,
    "GIF": _animation,
    "WEBP": _webp,
    "AVIF": _avif,
    "HEIF": _heif,
    "TIFF": _tiff,
    "BMP": _bmp,
}
"""Bytes for each pixel of the full size, beside the loaded image, by format."""
