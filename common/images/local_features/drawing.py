"""Drawn images: whether an image is one, where its content is, and its sketch; and small copies of any image."""

import math
from dataclasses import replace
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from common.images.local_features.sketches import (
    COLOUR_STEP,
    LEVELS,
    MAX_CELLS,
    MAX_STEPS,
    NEUTRAL,
    WHITE,
    Sketch,
    SmallCopy,
    blocks,
)

Area: TypeAlias = tuple[slice, slice]
"""Rows and columns of an image."""

# The background of a drawn image has at least this share of its pixels, within a range of five greys.
_BACKGROUND = 0.35
_BACKGROUND_GREYS = 5
# Lines along a side that are enough to see it.
_SAMPLED_LINES = 128
# Of a photograph on a background, at least these shares of its content and of all its pixels are shaded: they differ
# from their neighbours by 1 to 8 greys. Letters and areas differ by more, or not at all.
_SHADED_OF_CONTENT = 0.25
_SHADED_OF_ALL = 0.02
_SHADES = 8
# The noise of an encoder shades areas too, but hardly the means of blocks. So at least this share of the content's
# blocks are shaded. A shaded block is smooth, with a standard deviation of up to 8 greys. The mean of a smooth
# neighbour differs by 2 to 24.
_SHADED_BLOCKS = 0.1
_BLOCKS = 64
_BLOCK_DEVIATION = 8
_BLOCK_SHADES = (2, 24)
# Content differs from the background by more than this: more than the noise of an encoder beside letters does.
_INK = 24
# Keypoints need some background around the content.
_MARGIN_PX = 8
_MARGIN = 1 / 32
# Smaller cells differ in a copy of half the size.
_SMALLEST_CELL_PX = 5
_MAX_LINES = 255

_COPY_PX = 240
# Rows: luma, and the differences of red and blue from it (ITU-R BT.601).
_COLOURS = np.array([(0.299, 0.587, 0.114), (0.5, -0.418688, -0.081312), (-0.168736, -0.331264, 0.5)], dtype=np.float32)


def to_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey values (rows, columns) of RGB `pixels` (rows, columns, 3)."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def is_drawn(grey: NDArray[np.uint8]) -> bool:
    """Return whether a third of an image is of one grey, and the rest is not a photograph."""
    step = max(1, min(grey.shape) // _SAMPLED_LINES)
    sample = grey[::step, ::step]
    counts = np.bincount(sample.ravel(), minlength=256)
    has_background = np.convolve(counts, np.ones(_BACKGROUND_GREYS)).max() >= _BACKGROUND * sample.size
    return bool(has_background) and not _is_shaded(grey, int(counts.argmax()))


def _is_shaded(grey: NDArray[np.uint8], background: int) -> bool:
    """Return whether an image with a background is a photograph, like one of a product on white."""
    levels = grey.astype(np.int16)
    inside = levels[1:, 1:]
    apart = np.maximum(np.abs(inside - levels[1:, :-1]), np.abs(inside - levels[:-1, 1:]))
    is_content = np.abs(inside - background) > _INK
    shaded = np.count_nonzero(is_content & (apart > 0) & (apart <= _SHADES))
    if shaded <= _SHADED_OF_CONTENT * np.count_nonzero(is_content) or shaded <= _SHADED_OF_ALL * grey.size:
        return False
    return _has_shaded_blocks(grey, background)


def _has_shaded_blocks(grey: NDArray[np.uint8], background: int) -> bool:
    """Return whether the content has smooth areas whose grey changes slowly."""
    side = max(2, round(min(grey.shape) / _BLOCKS))
    rows, columns = (length // side for length in grey.shape)
    if min(rows, columns) == 0:
        return False
    pixels = grey[: rows * side, : columns * side].astype(np.float32)
    means, squares = (
        np.asarray(cv2.resize(each, (columns, rows), interpolation=cv2.INTER_AREA)) for each in (pixels, pixels**2)
    )
    is_content = np.abs(means - background) > _INK
    is_smooth = is_content & (squares - means**2 < _BLOCK_DEVIATION**2)
    is_shaded = np.zeros_like(is_smooth)
    least, most = _BLOCK_SHADES
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        apart = np.abs(means[one] - means[other])
        both = is_smooth[one] & is_smooth[other] & (apart > least) & (apart < most)
        is_shaded[one] |= both
        is_shaded[other] |= both
    return bool(np.count_nonzero(is_shaded) > _SHADED_BLOCKS * np.count_nonzero(is_content))


def drawn_content(grey: NDArray[np.uint8]) -> Area | None:
    """Return the area of a drawn image that differs from its background, and a little margin; None for other images."""
    if not is_drawn(grey):
        return None
    background = int(np.bincount(grey.ravel(), minlength=256).argmax())
    ink = (grey < background - _INK) | (grey > background + _INK)
    return _ends(np.asarray(ink.any(axis=1))), _ends(np.asarray(ink.any(axis=0)))


def _ends(lines: NDArray[np.bool_]) -> slice:
    inked = np.flatnonzero(lines)
    if not len(inked):
        return slice(0, len(lines))
    margin = _MARGIN_PX + round(_MARGIN * (inked[-1] - inked[0]))
    return slice(max(0, int(inked[0]) - margin), min(len(lines), int(inked[-1]) + 1 + margin))


def shrink(pixels: NDArray[np.uint8], *, width: int, height: int) -> SmallCopy:
    """Return the small copy of RGB `pixels` (rows, columns, 3), of an image of `width` by `height` pixels."""
    return shrink_area(pixels, drawn_content(to_grey(pixels)), width=width, height=height)


def shrink_area(pixels: NDArray[np.uint8], area: Area | None, *, width: int, height: int) -> SmallCopy:
    """Return the small copy of an image whose `drawn_content` is `area`, like `shrink`."""
    across, down = width / pixels.shape[1], height / pixels.shape[0]
    rows, columns = area or (slice(0, pixels.shape[0]), slice(0, pixels.shape[1]))
    part = pixels[rows, columns]
    shrink = max(1.0, max(part.shape[:2]) / _COPY_PX)
    tall, wide = (max(1, round(side / shrink)) for side in part.shape[:2])
    small = np.asarray(cv2.resize(part, (wide, tall), interpolation=cv2.INTER_AREA))
    step_x, step_y = across * part.shape[1] / wide, down * part.shape[0] / tall
    coloured = small.astype(np.float32) @ _COLOURS.T + NEUTRAL
    drawn = np.rint(coloured).clip(0, 255).astype(np.uint8)
    return SmallCopy(drawn, columns.start * across, rows.start * down, step_x, step_y, width, height)


def draw(copy: SmallCopy) -> Sketch:
    """Return the sketch of a drawn image, from its small copy."""
    width, height = copy.width, copy.height
    wide, tall = copy.step_x * copy.pixels.shape[1], copy.step_y * copy.pixels.shape[0]
    left, right = _steps(copy.x, wide, width)
    top, bottom = _steps(copy.y, tall, height)
    blank = Sketch(
        left, top, right, bottom, 0, WHITE, np.zeros(_grid(tall, wide), np.uint8), np.zeros((0, 0, 2), np.uint8)
    )
    values, _ = copy.shown(blank, (width, height), np.eye(2, 3))
    greys = values[..., 0]
    darkest, lightest = math.floor(greys.min()), min(WHITE, math.ceil(greys.max()))
    levels = np.rint((greys - darkest) * ((LEVELS - 1) / max(1, lightest - darkest)))
    colours = np.floor(blocks(values[..., 1:]) / COLOUR_STEP)
    return replace(
        blank, darkest=darkest, lightest=lightest, levels=levels.astype(np.uint8), colours=colours.astype(np.uint8)
    )


def _steps(start: float, length: float, side: int) -> tuple[int, int]:
    """Return the steps of a side at which a part of it begins and ends, rounded outwards."""
    first = min(MAX_STEPS - 1, math.floor(start / side * MAX_STEPS))
    return first, min(MAX_STEPS, max(first + 1, math.ceil((start + length) / side * MAX_STEPS)))


def _grid(tall: float, wide: float) -> tuple[int, int]:
    """Return the number of rows and columns of nearly square cells."""
    cell = max(_SMALLEST_CELL_PX, math.sqrt(tall * wide / MAX_CELLS))
    rows = min(_MAX_LINES, max(1, math.floor(tall / cell)))
    return rows, min(_MAX_LINES, MAX_CELLS // rows, max(1, round(wide / cell)))
