"""Animations: the first displayed frame that has features."""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from PIL import Image, ImageFile

from common.images.flatness import are_featureless
from common.images.signing import sign_all

# Formats whose frames are shown one after another. Further pages of a TIFF, and further images of a HEIC or of a JPEG
# (thumbnails, gain maps of HDR) are not frames.
_ANIMATED = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
# A fade-in of four seconds, and within the pixel limit about a second of CPU.
_FRAMES = 100
# Difference between the darkest and the lightest ninth of a side that counts as features. The first frames of a fade-in
# differ by less: there the rounding of an encoder is as large as the image.
_CONTRAST = 16
_GRID = (9, 9)

Render = Callable[[Image.Image], Image.Image]


def first_frame(image: ImageFile.ImageFile, render: Render, pixels_max: int) -> Image.Image:
    """Return the first frame with features, as RGB; the first one if none has, or if the image is not an animation.

    `render` turns a loaded frame into RGB. At most `pixels_max` pixels are decoded.
    """
    if image.format not in _ANIMATED or not getattr(image, "is_animated", False):
        image.load()
        return render(image)
    size = image.width * image.height
    frames = islice(_displayed(image, render), max(1, min(_FRAMES, pixels_max // size)))
    first = next(frames)
    if _has_features(first):
        return first
    return next((frame for frame in frames if _has_features(frame)), first)


def _displayed(image: ImageFile.ImageFile, render: Render) -> Iterator[Image.Image]:
    """Yield the frames that a browser shows, in their order."""
    image.load()
    default = render(image)
    # The first image of a PNG may be only for programs without animation.
    is_hidden = getattr(image, "default_image", False)
    if is_hidden:
        _clear(image)
    else:
        yield default
    number = 1
    while _advance(image, number):
        image.load()
        yield render(image)
        number += 1
    if is_hidden and number == 1:
        yield default


def _clear(image: Image.Image) -> None:
    """Clear the canvas: the animation begins without the hidden image."""
    canvas = 0 if image.mode in {"RGBA", "LA"} else "white"
    if image.mode != "P":
        image.paste(canvas, (0, 0, *image.size))


def _advance(image: ImageFile.ImageFile, number: int) -> bool:
    try:
        image.seek(number)
    except EOFError:
        return False
    return True


def _has_features(frame: Image.Image) -> bool:
    """Return whether a search can find the image by this frame."""
    ninths = np.asarray(frame.convert("L").resize(_GRID, Image.Resampling.BOX))
    return np.ptp(ninths) >= _CONTRAST and not are_featureless(sign_all(np.asarray(frame)))
