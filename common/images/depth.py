"""Grey images with more than eight bits a pixel, scaled to eight."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.images import tiff

# White of images with more than eight bits a colour: cameras and scanners use 8, 10, 12, 14 or 16.
_WHITES = (255.0, 1_023.0, 4_095.0, 16_383.0, 65_535.0)
# White of 32 bits, if the image uses the upper half of them. Others are measurements, such as heights.
_WHITE_32 = float(2**32 - 1)
# In these formats the specification states the value of white, and Pillow scales PNM to 16 bits.
_WHITE_BY_FORMAT = {"PNG": 65_535.0, "PPM": 65_535.0}

# Pixels that are converted at once: a few megabytes.
_BAND_PX = 500_000


def narrow(image: Image.Image) -> Image.Image:
    """Scale a grey image with more than eight bits to eight bits: Pillow would clip it, mostly to plain white.

    No header of a TIFF declares the value of white. It is assumed to be the first of _WHITES that no pixel exceeds,
    with 1.0 before them for floating-point pixels, else the brightest pixel. Black is 0, or the darkest pixel if that
    is lower. A transparent grey becomes the alpha channel.
    """
    if not (image.mode in {"I", "F"} or image.mode.startswith("I;16")):
        return image
    black, brightest, is_float = _range(image)
    scale = 255 / (_white(image, brightest, is_float=is_float) - black)
    is_white_zero, key = tiff.is_white_zero(image), image.info.get("transparency")
    narrowed = Image.new("L" if key is None else "LA", image.size)
    for top, wide in _bands(image):
        values = _finite(wide)
        # Scale first, then shift: the opposite order would overflow at the extremes of float32.
        values *= scale
        values += 0.5 - black * scale
        scaled = values.clip(0, 255, out=values).astype(np.uint8)
        band = Image.fromarray(255 - scaled if is_white_zero else scaled)
        if key is not None:
            band.putalpha(Image.fromarray(np.where(wide == key, 0, 255).astype(np.uint8)))
        narrowed.paste(band, (0, top))
    return narrowed


def _bands(image: Image.Image) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield some rows and the number of the first, again and again: arrays of all rows take three times the memory."""
    rows = max(1, _BAND_PX // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        yield top, tiff.wide_values(band, image)


def _range(image: Image.Image) -> tuple[float, float, bool]:
    """Return the values of black and of the brightest pixel, and whether pixels are floating-point numbers."""
    black, brightest, is_float = 0.0, -math.inf, False
    for _, wide in _bands(image):
        values = _finite(wide)
        black, brightest = min(black, float(values.min())), max(brightest, float(values.max()))
        is_float = wide.dtype.kind == "f"
    return black, brightest, is_float


def _finite(wide: NDArray[Any]) -> NDArray[np.float32]:
    return np.nan_to_num(wide.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _white(image: Image.Image, brightest: float, *, is_float: bool) -> float:
    format_ = getattr(image, "format", None)
    if format_ in _WHITE_BY_FORMAT:
        return _WHITE_BY_FORMAT[format_]
    if not is_float and brightest > _WHITE_32 / 2:
        return _WHITE_32
    whites = (1.0, *_WHITES) if is_float else _WHITES
    return next((white for white in whites if brightest <= white), brightest)
