"""Thumbnails: a small WebP of an image, of bounded sides and bytes."""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_BYTES = 6 * 1024
# Sides as a share of the wanted ones, and qualities. Most photographs of 256 pixels fit at the first two; one with more
# detail looks better smaller than at a lower quality. The last fits with any content.
STEPS = ((1.0, 60), (1.0, 35), (0.75, 35), (0.5, 35), (0.25, 20))
# libwebp's fastest: a third of the time of its default, for files that are a tenth larger.
METHOD = 0


def thumbnail(pixels: NDArray[np.uint8], px: int) -> bytes:
    """Return a WebP of RGB pixels whose longer side has at most `px`, in at most MAX_BYTES.

    A small image is not enlarged.
    """
    for share, quality in STEPS:
        data = _webp(_reduced(pixels, max(1, round(px * share))), quality)
        if len(data) <= MAX_BYTES:
            break
    return data


def _reduced(pixels: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if max(height, width) <= px:
        return pixels
    scale = px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _webp(pixels: NDArray[np.uint8], quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality, method=METHOD)
    return file.getvalue()
