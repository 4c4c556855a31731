"""The decoder: from bytes to upright RGB pixels, within limits. No other module decodes images."""

import functools
import math
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from common.errors import ImageError
from common.images.formats import check_format

# Progressive JPEGs have about ten scans. Each updates the whole image and may be a few bytes long: without a limit, a
# file of some megabytes keeps the decoder busy for an hour.
_JPEG_SCANS = 100
# Pillow's decoders written in Python take more than a second for more pixels, and block the other threads meanwhile.
_INTERPRETED_PIXELS = 1_000_000
# Pillow starts a decoder for each strip of a TIFF: with more strips, the starts take seconds.
_TILES = 100_000

_TRANSPOSE = Image.Transpose
# The operation that turns the stored pixels upright, by EXIF orientation.
_UPRIGHT: dict[object, Image.Transpose] = {
    2: _TRANSPOSE.FLIP_LEFT_RIGHT,
    3: _TRANSPOSE.ROTATE_180,
    4: _TRANSPOSE.FLIP_TOP_BOTTOM,
    5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270,
    7: _TRANSPOSE.TRANSVERSE,
    8: _TRANSPOSE.ROTATE_90,
}
_SIDEWAYS = {_TRANSPOSE.TRANSPOSE, _TRANSPOSE.ROTATE_270, _TRANSPOSE.TRANSVERSE, _TRANSPOSE.ROTATE_90}

# White of images with more than eight bits a colour: cameras and scanners use 8, 10, 12, 14 or 16.
_WHITES = (255.0, 1_023.0, 4_095.0, 16_383.0, 65_535.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of decoding.

    `pixels` limits the decoded pixels. `jpeg_pixels` limits the full size of JPEGs that are decoded as drafts, which
    needs no memory for the full size. A JPEG is decoded as a draft if both sides are at least twice `draft_px`
    (0: never).
    """

    pixels: int = 50_000_000
    jpeg_pixels: int = 200_000_000
    draft_px: int = 1024


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """Upright RGB `pixels` (height, width, 3) on white, perhaps of a draft; `width` and `height` are the full size."""

    pixels: NDArray[np.uint8]
    width: int
    height: int


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> DecodedImage:
    """Return the image in `data`, its first frame or page.

    Raises ImageError, and no other exception. Its `code` is one of

    - empty_image: no bytes;
    - not_an_image: the first bytes are not those of an image;
    - unsupported_format: an unsupported format, such as SVG, or a wasteful variant of a supported one;
    - too_many_pixels: the header declares more than the limits allow;
    - truncated_image: the end is missing;
    - broken_image: the bytes are inconsistent;
    - image_too_large_to_decode: the decoder requested more memory than is available.
    """
    formats = check_format(data)
    _prepare_pillow(max(limits.pixels, limits.jpeg_pixels))
    try:
        with Image.open(BytesIO(data), formats=formats) as image:
            return _read(image, data, limits)
    except ImageError:
        raise
    except Exception as error:
        # Hostile bytes make decoders raise nearly any exception: OSError, SyntaxError, struct.error, KeyError,
        # ZeroDivisionError, OverflowError, RuntimeError … All mean that the image is broken, and must fail only this
        # image. So does MemoryError: within our limits, only a false size in the file requests gigabytes.
        raise _image_error(error, formats[0]) from error


@functools.cache
def _prepare_pillow(pixels_max: int) -> None:
    """Set up Pillow for this process, at the first image rather than at import.

    `pixels_max` stops images that turn out larger, while they are decoded, than their header declared. It never
    decreases: another thread may be decoding within higher limits.
    """
    Image.init()
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    # One process per core is busy already; more threads would only compete.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = max(pixels_max, Image.MAX_IMAGE_PIXELS or 0)
    # Pillow warns at this size and raises an error at twice the size: raise at the first.
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _read(image: ImageFile.ImageFile, data: bytes, limits: Limits) -> DecodedImage:
    """Decode an opened image, after its header has passed the checks."""
    width, height = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        _shrink(image, data, limits)
    _check_cost(image, limits.pixels)
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    if turn in _SIDEWAYS:
        width, height = height, width
    flat = _flatten(image)
    return DecodedImage(np.asarray(flat if turn is None else flat.transpose(turn)), width, height)


def _shrink(image: JpegImagePlugin.JpegImageFile, data: bytes, limits: Limits) -> None:
    """Select a draft (a half, a quarter or an eighth) for a large JPEG. Raises ImageError if it is still too large."""
    if _has_one_scan(image, data):
        _check_pixels(image.size, limits.jpeg_pixels)
    else:
        # With several scans the decoder keeps all coefficients of the full size, also for a draft.
        _check_pixels(image.size, limits.pixels)
        _check_scans(data)
    if limits.draft_px:
        image.draft("RGB", (limits.draft_px, limits.draft_px))


def _check_scans(data: bytes) -> None:
    # Compressed data never contains this pair of bytes: it always begins a scan.
    if data.count(b"\xff\xda") > _JPEG_SCANS:
        message = f"the JPEG image has more than {_JPEG_SCANS} scans"
        raise ImageError(message, code="unsupported_format")


def _has_one_scan(image: JpegImagePlugin.JpegImageFile, data: bytes) -> bool:
    """Return whether the first scan of a JPEG contains all its colours; False if in doubt.

    Pillow has stopped reading after that scan's header.
    """
    header = b"\xff\xda" + struct.pack(">HB", 6 + 2 * image.layers, image.layers)
    begin = image.fp.tell() - 8 - 2 * image.layers if image.fp else 0
    return "progressive" not in image.info and data.startswith(header, max(0, begin))


def _check_cost(image: ImageFile.ImageFile, pixels: int) -> None:
    """Raise ImageError for an image that would take too much memory or time to decode."""
    _check_pixels(image.size, pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is decoded whole, even if it is larger than the image.
        tile = [image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        _check_pixels(tile, pixels)
    if len(image.tile) > _TILES:
        message = f"the image has more than {_TILES:,} tiles"
        raise ImageError(message, code="unsupported_format")
    if any(tile[0] in Image.DECODERS for tile in image.tile):
        _check_pixels(image.size, min(pixels, _INTERPRETED_PIXELS))


def _check_pixels(sides: Sequence[int], limit: int) -> None:
    if math.prod(sides) > limit:
        message = f"the image has {' x '.join(map(str, sides))} pixels; the limit for its format is {limit:,}"
        raise ImageError(message, code="too_many_pixels")


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises nearly any exception, and the pixels do not depend on it
        return None


def _flatten(image: Image.Image) -> Image.Image:
    """Return any image as RGB with eight bits a colour, with transparent parts on white."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        image = _narrow(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _narrow(image: Image.Image) -> Image.Image:
    """Scale a grey image with more than eight bits to eight bits: Pillow would clip it, mostly to plain white.

    No header declares the value of white. It is assumed to be the first of _WHITES that no pixel exceeds, with 1.0
    before them for floating-point pixels, else the brightest pixel. Black is 0, or the darkest pixel if that is lower.
    """
    wide = np.array(image)
    values = np.nan_to_num(wide.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    black, brightest = min(0.0, float(values.min())), float(values.max())
    whites = (1.0, *_WHITES) if wide.dtype.kind == "f" else _WHITES
    scale = 255 / (next((white for white in whites if brightest <= white), brightest) - black)
    # Scale first, then shift: the opposite order would overflow at the extremes of float32.
    values *= scale
    values += 0.5 - black * scale
    narrow = values.clip(0, 255, out=values).astype(np.uint8)
    if "transparency" in image.info:
        narrow[wide == image.info["transparency"]] = 255
    return Image.fromarray(narrow)


def _image_error(error: Exception, name: str) -> ImageError:
    """Return our error for a decoder's exception, without its message, which may contain paths and addresses."""
    if isinstance(error, MemoryError):
        return ImageError(f"decoding the {name} image takes too much memory", code="image_too_large_to_decode")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(f"the {name} image has more pixels than allowed", code="too_many_pixels")
    if isinstance(error, EOFError) or "truncated" in str(error):
        return ImageError(f"the {name} image is truncated", code="truncated_image")
    return ImageError(f"the {name} image is broken, or of an unsupported variant", code="broken_image")
