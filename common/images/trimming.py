"""The second signature of an image with flat margins: that of the image without them.

A signature's own crop ends at the first line with any difference of grey. One pixel or a little noise in a margin
moves it, so that a letterboxed frame, a page or a logo differs from its own copies. Here a line is flat while at most
a hundredth of its pixels differ visibly from its median.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from common.images.signature import Signature, is_featureless, sign

# A pixel differs visibly from a line's median by more than this many of 256 levels of grey: more than JPEG's noise.
_LEVELS = 6
_DIFFERENT = 0.01
# Signatures of fewer pixels a side are mostly noise.
_SMALLEST_PX = 20


def second_signature(pixels: NDArray[np.uint8], first: Signature) -> Signature | None:
    """Return the signature of RGB `pixels` (height, width, 3) without flat margins.

    It is None where it adds nothing: without a flat margin, or if it equals the `first` signature or is featureless.
    """
    trimmed = trim(pixels)
    if trimmed is None:
        return None
    second = sign(trimmed)
    return None if is_featureless(second) or np.array_equal(first, second) else second


def trim(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the part (view) of RGB `pixels` (height, width, 3) inside its flat margins.

    It is None without a flat margin, or where less than 20 pixels a side would remain.
    """
    top, bottom = _inside(pixels)
    inside = pixels[top:bottom]
    if len(inside) < _SMALLEST_PX:
        return None
    left, right = _inside(inside.swapaxes(0, 1))
    trimmed = inside[:, left:right]
    return None if trimmed.shape == pixels.shape or right - left < _SMALLEST_PX else trimmed


def _inside(lines: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the range of `lines` (n, length, 3) between the flat ones at both ends; (0, 0) if all are flat."""
    first, last = 0, len(lines)
    while first < last and _is_flat(lines[first]):
        first += 1
    while last > first and _is_flat(lines[last - 1]):
        last -= 1
    return (first, last) if first < last else (0, 0)


def _is_flat(line: NDArray[np.uint8]) -> bool:
    grey = cv2.cvtColor(np.ascontiguousarray(line)[np.newaxis], cv2.COLOR_RGB2GRAY)[0].astype(np.int16)
    median = np.partition(grey, len(grey) // 2)[len(grey) // 2]
    return bool(np.count_nonzero(np.abs(grey - median) > _LEVELS) <= _DIFFERENT * len(grey))
