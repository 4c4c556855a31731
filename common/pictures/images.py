"""Bytes to upright RGB pixels, within limits: the only place that decodes pictures."""

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
from common.pictures.formats import check_format

# Progressive JPEGs have about ten scans. Each walks through the whole picture and may be a few bytes long: without a
# limit, a file of some megabytes keeps the decoder busy for an hour.
_JPEG_SCANS = 100
# Pillow's decoders written in Python take more than a second for so many, and hold up the other threads meanwhile.
_INTERPRETED_PIXELS = 1_000_000
# Pillow starts a decoder for each strip of a TIFF: more than this, and that alone takes seconds.
_TILES = 100_000

_TRANSPOSE = Image.Transpose
# EXIF's orientations: what turns the stored pixels upright.
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

# White where pixels are wider than eight bits: cameras and scanners fill 8, 10, 12, 14 or 16 of them.
_WHITES = (255.0, 1_023.0, 4_095.0, 16_383.0, 65_535.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a picture may cost.

    `pixels` holds for what is decoded; `jpeg_pixels` for JPEGs that are read shrunken, which needs no memory for the
    rest; a JPEG whose sides are both at least twice `draft_px` is read so (0: never).
    """

    pixels: int = 50_000_000
    jpeg_pixels: int = 200_000_000
    draft_px: int = 1024


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Upright RGB `pixels` (height, width, 3) on white, perhaps shrunken; `width` and `height` are the full size's."""

    pixels: NDArray[np.uint8]
    width: int
    height: int


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Return the picture in `data`; of several frames or pages the first.

    Raises ImageError and nothing else, whose `code` is one of

    - empty_image: there are no bytes;
    - not_an_image: the first bytes are those of no picture;
    - unsupported_format: a format that is not read, such as SVG, or a wasteful variant of one that is;
    - too_many_pixels: more than the limits allow, by its header;
    - truncated_image: the end is missing;
    - broken_image: the bytes contradict themselves;
    - out_of_memory: the decoder asked for more memory than there is.
    """
    formats = check_format(data)
    _prepare_pillow(max(limits.pixels, limits.jpeg_pixels))
    try:
        with Image.open(BytesIO(data), formats=formats) as image:
            return _read(image, data, limits)
    except ImageError:
        raise
    except Exception as error:
        # Hostile bytes get decoders to raise nearly anything: OSError, SyntaxError, struct.error, KeyError,
        # ZeroDivisionError, OverflowError, RuntimeError … All say the same of the bytes, and none may cost more than
        # them. MemoryError is among these: within our limits it is a lie in the file that asks for gigabytes.
        raise _explained(error, formats[0]) from error


@functools.cache
def _prepare_pillow(wall: int) -> None:
    """Set up Pillow for this process, at the first picture rather than at import.

    `wall`, in pixels, stops pictures that turn out bigger while they are decoded than their header said. It only ever
    rises: another thread may be decoding by wider limits.
    """
    Image.init()
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    # One process a core is busy already; more threads would only take turns.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = max(wall, Image.MAX_IMAGE_PIXELS or 0)
    # Pillow's first complaint is a warning, its second an error at twice the size: the first is enough.
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _read(image: ImageFile.ImageFile, data: bytes, limits: Limits) -> Picture:
    """Decode an opened picture, once its header has shown that it may be decoded."""
    width, height = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        _shrink(image, data, limits)
    _check_cost(image, limits.pixels)
    image.load()
    turned = _UPRIGHT.get(_orientation(image))
    if turned in _SIDEWAYS:
        width, height = height, width
    flat = _flatten(image)
    return Picture(np.asarray(flat if turned is None else flat.transpose(turned)), width, height)


def _shrink(image: JpegImagePlugin.JpegImageFile, data: bytes, limits: Limits) -> None:
    """Have a big JPEG decoded at a half, a quarter or an eighth, and refuse one that even then costs too much."""
    if _has_one_scan(image, data):
        _check_pixels(image.size, limits.jpeg_pixels)
    else:
        # With several scans the decoder keeps all coefficients of the full size, whatever size is asked for.
        _check_pixels(image.size, limits.pixels)
        _check_scans(data)
    if limits.draft_px:
        image.draft("RGB", (limits.draft_px, limits.draft_px))


def _check_scans(data: bytes) -> None:
    # Between compressed bytes this pair never stands for anything else.
    if data.count(b"\xff\xda") > _JPEG_SCANS:
        message = f"the JPEG picture has more than {_JPEG_SCANS} scans"
        raise ImageError(message, code="unsupported_format")


def _has_one_scan(image: JpegImagePlugin.JpegImageFile, data: bytes) -> bool:
    """Say whether all colours of a JPEG stand in its first scan; if in doubt, no.

    Pillow has stopped reading behind that scan's header.
    """
    header = b"\xff\xda" + struct.pack(">HB", 6 + 2 * image.layers, image.layers)
    begin = image.fp.tell() - 8 - 2 * image.layers if image.fp else 0
    return "progressive" not in image.info and data.startswith(header, max(0, begin))


def _check_cost(image: ImageFile.ImageFile, pixels: int) -> None:
    """Refuse what would take too much memory or time to decode."""
    _check_pixels(image.size, pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is decoded whole, also where it is larger than the picture.
        tile = [image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        _check_pixels(tile, pixels)
    if len(image.tile) > _TILES:
        message = f"the picture is cut into more than {_TILES:,} pieces"
        raise ImageError(message, code="unsupported_format")
    if any(tile[0] in Image.DECODERS for tile in image.tile):
        _check_pixels(image.size, min(pixels, _INTERPRETED_PIXELS))


def _check_pixels(sides: Sequence[int], limit: int) -> None:
    if math.prod(sides) > limit:
        message = f"the picture has {' x '.join(map(str, sides))} pixels; {limit:,} are the limit for its kind"
        raise ImageError(message, code="too_many_pixels")


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises nearly anything, and the pixels are sound without it
        return None


def _flatten(image: Image.Image) -> Image.Image:
    """Return any picture as RGB with eight bits a colour, its transparent parts on white."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        image = _narrow(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _narrow(image: Image.Image) -> Image.Image:
    """Scale a grey picture with wide pixels to eight bits: Pillow would clip it, mostly to plain white.

    No header says what is white. It is taken to be the first of _WHITES, or of 1.0 if pixels have fractions, that no
    pixel exceeds; else the brightest pixel. Black is 0, or the darkest pixel below.
    """
    wide = np.array(image)
    values = np.nan_to_num(wide.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    black, brightest = min(0.0, float(values.min())), float(values.max())
    whites = (1.0, *_WHITES) if wide.dtype.kind == "f" else _WHITES
    scale = 255 / (next((white for white in whites if brightest <= white), brightest) - black)
    # Scaled before it is shifted: the extremes of float32 would overflow the other way round.
    values *= scale
    values += 0.5 - black * scale
    narrow = values.clip(0, 255, out=values).astype(np.uint8)
    if "transparency" in image.info:
        narrow[wide == image.info["transparency"]] = 255
    return Image.fromarray(narrow)


def _explained(error: Exception, kind: str) -> ImageError:
    """Return what a decoder's complaint means; its own words may show paths and addresses."""
    if isinstance(error, MemoryError):
        return ImageError(f"the {kind} picture takes more memory to decode than there is", code="out_of_memory")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(f"the {kind} picture has more pixels than are allowed", code="too_many_pixels")
    if isinstance(error, EOFError) or "truncated" in str(error):
        return ImageError(f"the {kind} picture is cut short", code="truncated_image")
    return ImageError(f"the {kind} picture is broken, or of a kind that is not read", code="broken_image")
