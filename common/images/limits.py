"""Limits of decoding: the pixels, tiles and time that one image may cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageFile, TiffImagePlugin

from common.errors import ImageError

# Pillow's decoders written in Python take more than a second for more pixels, and block the other threads meanwhile.
_INTERPRETED_PIXELS = 1_000_000
# Pillow starts a decoder for each strip of a TIFF: with more strips, the starts take seconds.
_TILES = 100_000

PIXELS_SETTING = "MATCH_MAX_IMAGE_PIXELS"
JPEG_PIXELS_SETTING = "MATCH_MAX_JPEG_PIXELS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of decoding.

    `pixels` limits the decoded pixels. `jpeg_pixels` limits the full size of JPEGs that are decoded as drafts, which
    needs no memory for the full size. A JPEG is decoded as a draft if both sides are at least twice `draft_px`
    (0: never); images of other formats are reduced alike, after they are decoded. `memory_bytes` limits the memory that
    `common.images.cost` estimates from the header.
    """

    pixels: int = 50_000_000
    jpeg_pixels: int = 200_000_000
    draft_px: int = 1024
    memory_bytes: int = 640 * 1024 * 1024


DEFAULT_LIMITS = Limits()


def check_cost(image: ImageFile.ImageFile, pixels: int) -> None:
    """Raise ImageError for an image that has too many pixels or would take too much time to decode."""
    check_pixels(image.size, pixels, PIXELS_SETTING)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is decoded whole, even if it is larger than the image.
        tile = [image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        check_pixels(tile, pixels, PIXELS_SETTING)
    if len(image.tile) > _TILES:
        message = f"the image has more than {_TILES:,} tiles"
        raise ImageError(message, code="unsupported_format")
    if any(tile[0] in Image.DECODERS for tile in image.tile) and math.prod(image.size) > _INTERPRETED_PIXELS:
        message = f"{_pixels(image.size)}; the limit for this variant of its format is {_INTERPRETED_PIXELS:,}"
        raise ImageError(message, code="too_many_pixels")


def check_pixels(sides: Sequence[int], limit: int, setting: str) -> None:
    """Raise ImageError if the product of `sides` exceeds the limit; the error names the setting."""
    if math.prod(sides) > limit:
        message = f"{_pixels(sides)}; the limit is {limit:,} ({setting})"
        raise ImageError(message, code="too_many_pixels")


def _pixels(sides: Sequence[int]) -> str:
    return f"the image has {' x '.join(map(str, sides))} pixels"
