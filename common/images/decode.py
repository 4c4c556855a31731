"""The decoder: from bytes to upright RGB pixels, within limits. No other package decodes images."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from common.errors import ImageError
from common.images import bmp, jpeg, jpeg_end, png, tiff, webp
from common.images.bounds import check_bounds
from common.images.cost import check_memory
from common.images.depth import narrow
from common.images.failures import image_error
from common.images.formats import check_format
from common.images.frames import first_frame
from common.images.jpeg_outline import Outline, read_outline
from common.images.limits import DEFAULT_LIMITS, Limits, check_cost
from common.images.plugins import prepare_libraries
from common.images.reduction import reduced
from common.images.transparency import flatten
from common.images.turbo import decode_jpeg
from common.images.upright import forget_xmp, turned, turned_size, upright_turn

__all__ = ["DEFAULT_LIMITS", "DecodedImage", "Limits", "decode"]


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """Upright, opaque RGB `pixels` (height, width, 3), perhaps of a draft; `width` and `height` are the full size."""

    pixels: NDArray[np.uint8]
    width: int
    height: int


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> DecodedImage:
    """Return the image in `data`, its first frame with features or its first page.

    Raises ImageError, and no other exception. Its `code` is one of

    - empty_image: no bytes;
    - not_an_image: the first bytes are not those of an image;
    - unsupported_format: an unsupported format, such as SVG, or a wasteful variant of a supported one;
    - too_many_pixels: the header declares more than the limits allow;
    - truncated_image: the end is missing;
    - broken_image: the bytes are inconsistent;
    - image_too_large_to_decode: it would take more memory than the limit, or took more than is available.
    """
    formats = check_format(data)
    prepare_libraries(max(limits.pixels, limits.jpeg_pixels))
    try:
        if formats == ("JPEG",) and (decoded := decode_jpeg(data, limits)):
            pixels, header = decoded
            return _upright(pixels, header.size, header.exif)
        check_bounds(data, formats)
        if formats == ("WEBP",):
            webp.check_size(data, limits)
        outline = read_outline(data) if formats == ("JPEG",) else None
        data = _repaired(data, formats, outline, limits)
        with Image.open(BytesIO(data), formats=formats) as image:
            return _read(image, data, outline, limits)
    except ImageError:
        raise
    except Exception as error:
        # Hostile bytes make decoders raise nearly any exception: OSError, SyntaxError, struct.error, KeyError,
        # ZeroDivisionError, OverflowError, RuntimeError … All mean that the image is broken, and must fail only this
        # image. So does MemoryError: within our limits, only a false size in the file requests gigabytes.
        raise image_error(error, data, formats) from error


def _repaired(data: bytes, formats: tuple[str, ...], outline: Outline | None, limits: Limits) -> bytes:
    """Return the file without faults that no pixel depends on. Raises ImageError for missing data."""
    if formats == ("PNG",):
        return png.keep_needed_chunks(data)
    if outline is not None:
        return jpeg_end.end_properly(data, outline, limits)
    return data


def _read(image: ImageFile.ImageFile, data: bytes, outline: Outline | None, limits: Limits) -> DecodedImage:
    """Decode an opened image, after its header has passed the checks."""
    size = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        jpeg.shrink(image, data, limits)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tiff.check_pieces(image, data)
    check_cost(image, limits.pixels)
    check_memory(image, size, data, limits)
    forget_xmp(image)
    pixels = np.asarray(first_frame(image, lambda frame: _flat(frame, data, limits), limits.pixels))
    if outline:
        jpeg_end.check_filled(pixels, data, outline, limits)
    return _upright(pixels, size, image.info.get("exif", b""))


def _upright(pixels: NDArray[np.uint8], size: tuple[int, int], exif: bytes) -> DecodedImage:
    turn = upright_turn(exif)
    return DecodedImage(turned(pixels, turn), *turned_size(size, turn))


def _flat(image: Image.Image, data: bytes, limits: Limits) -> Image.Image:
    """Return a loaded image as RGB with eight bits a colour, by the rules of its format."""
    match image.format:
        case "PNG":
            image = png.apply_key(image, data)
        case "BMP":
            image = bmp.drop_empty_alpha(image)
    return flatten(reduced(narrow(image), limits.draft_px))
