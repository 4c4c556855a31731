"""The decoder's libraries, set up for this process."""

import functools
import warnings

import cv2
import pillow_heif
from PIL import AvifImagePlugin, Image

from common.images import tiff


@functools.cache
def prepare_libraries(pixels_max: int) -> None:
    """Set up the libraries for this process, at the first image rather than at import.

    `pixels_max` stops images that turn out larger, while they are decoded, than their header declared. It never
    decreases: another thread may be decoding within higher limits.
    """
    Image.init()
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    tiff.register_variants()
    # One process per core is busy already; more threads would only compete.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    cv2.setNumThreads(1)
    Image.MAX_IMAGE_PIXELS = max(pixels_max, Image.MAX_IMAGE_PIXELS or 0)
    # Pillow warns at this size and raises an error at twice the size: raise at the first.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
