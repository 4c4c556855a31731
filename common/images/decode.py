"""The decoder: from bytes to upright RGB pixels, within limits. No other package decodes images."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin

from common.errors import ImageError
from common.images import jpeg
from common.images.depth import narrow
from common.images.failures import image_error
from common.images.formats import check_format
from common.images.limits import DEFAULT_LIMITS, Limits, check_cost
from common.images.opencv import jpeg_pixels, turned
from common.images.plugins import prepare_pillow
from common.images.transparency import flatten
from common.images.upright import turned_size, upright_turn

__all__ = ["DEFAULT_LIMITS", "DecodedImage", "Limits", "decode"]


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
    - out_of_memory: the decoder requested more memory than is available.
    """
    formats = check_format(data)
    prepare_pillow(max(limits.pixels, limits.jpeg_pixels))
    try:
        with Image.open(BytesIO(data), formats=formats) as image:
            return _read(image, data, limits)
    except ImageError:
        raise
    except Exception as error:
        # Hostile bytes make decoders raise nearly any exception: OSError, SyntaxError, struct.error, KeyError,
        # ZeroDivisionError, OverflowError, RuntimeError … All mean that the image is broken, and must fail only this
        # image. So does MemoryError: within our limits, only a false size in the file requests gigabytes.
        raise image_error(error, formats[0]) from error


def _read(image: ImageFile.ImageFile, data: bytes, limits: Limits) -> DecodedImage:
    """Decode an opened image, after its header has passed the checks."""
    size = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        jpeg.shrink(image, data, limits)
    check_cost(image, limits.pixels)
    pixels = _stored_pixels(image, data)
    turn = upright_turn(image)
    return DecodedImage(turned(pixels, turn), *turned_size(size, turn))


def _stored_pixels(image: ImageFile.ImageFile, data: bytes) -> NDArray[np.uint8]:
    """Return the RGB pixels before turning."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        pixels = jpeg_pixels(image, data)
        if pixels is not None:
            return pixels
    image.load()
    return np.asarray(flatten(narrow(image)))
