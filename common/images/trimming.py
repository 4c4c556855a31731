"""Robust trimming: an image without its flat margins, also where they have noise.

image-match's signature skips only lines whose pixels all have the same grey. One different pixel in a black bar, or
the noise of an encoder, makes the bar a part of the image.
"""

import numpy as np
from numpy.typing import NDArray

# A line is flat if at most one in so many of its grey values differs from its median by more than the tolerance.
_PIXELS_PER_OUTLIER = 100
_TOLERANCE = 6
# Below about 20 pixels a side a signature is mostly noise.
_SMALLEST_PX = 20
# Pixels that are enough to see that a line of a photograph is not flat, as most are not.
_SAMPLE_PX = 32
# Lines at once. Each step is twice as long as the one before: a photograph costs four lines, a margin few calls.
_LONGEST_STEP = 64
# Shares of red, green and blue in grey (ITU-R BT.709), in units of 1/256: float32 has their sums exactly.
_GREY_UNIT = 256
_SHARES = np.array([54, 183, 19])
_LUMA = (_SHARES / _GREY_UNIT).astype(np.float32)


def trimmed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return a view of RGB `pixels` (height, width, 3) without the flat lines at its four sides.

    None if no side has a flat line, or if less than 20 pixels a side remain.
    """
    if min(pixels.shape[:2]) < _SMALLEST_PX:
        return None
    inside = pixels
    while True:
        before = inside.shape
        for _axis in ("rows", "columns"):
            inside = _without_flat_ends(inside)
            if len(inside) < _SMALLEST_PX:
                return None
            inside = inside.swapaxes(0, 1)
        # A line that was not flat may be so without the margins that crossed it.
        if inside.shape == before:
            return None if inside.shape == pixels.shape else inside


def _without_flat_ends(lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the lines without the flat ones at both ends."""
    first, last = _may_be_flat(lines)
    following = lines[_flat_lines(lines) :] if first else lines
    return following[: len(following) - _flat_lines(following[::-1])] if last else following


def _flat_lines(lines: NDArray[np.uint8]) -> int:
    """Return the number of flat lines before the first that is not."""
    start, step = 0, 1
    while start < len(lines):
        flat = _are_flat(lines[start : start + step])
        if not flat.all():
            return start + int(flat.argmin())
        start, step = start + step, min(2 * step, _LONGEST_STEP)
    return len(lines)


def _may_be_flat(lines: NDArray[np.uint8]) -> list[bool]:
    """Return for the first and the last line whether a sample of its pixels leaves open that it is flat."""
    length = lines.shape[1]
    if length < _SAMPLE_PX:
        return [True, True]
    step = length // _SAMPLE_PX
    greys = lines[:: len(lines) - 1, : _SAMPLE_PX * step : step] @ _SHARES
    greys.sort()
    # In the best case all outliers of a line are in its sample, at the dark end, the light end or both.
    within = max(1, _SAMPLE_PX - length // _PIXELS_PER_OUTLIER)
    # These greys are not yet rounded down.
    limit = (2 * _TOLERANCE + 1) * _GREY_UNIT
    return [
        any(light - dark < limit for dark, light in zip(grey, grey[within - 1 :], strict=False))
        for grey in greys.tolist()
    ]


def _are_flat(lines: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return whether each line is flat."""
    greys = _ordered_greys(lines)
    length = greys.shape[1]
    allowed = length // _PIXELS_PER_OUTLIER
    # Only so many at either end decide: one more outlier there is one too many.
    ends = np.concatenate([greys[:, : allowed + 1], greys[:, -allowed - 1 :]], axis=1)
    deviations = np.abs(ends.astype(np.int16) - greys[:, length // 2, np.newaxis])
    flat: NDArray[np.bool_] = (deviations > _TOLERANCE).sum(axis=1) <= allowed
    return flat


def _ordered_greys(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the greys of pixels from 0 to 255, in ascending order along the last axis."""
    greys = (pixels.astype(np.float32) @ _LUMA).astype(np.uint8)
    # For bytes the stable sort is numpy's radix sort, which is many times as fast as the others.
    greys.sort(kind="stable")
    return greys
