"""Large images, reduced before anything makes copies of them."""

from PIL import Image

from common.images.transparency import unpremultiplied

# The sizes of JPEG drafts. Copies of an image are reduced alike in every format, so that their signatures stay close.
_FACTORS = (8, 4, 2)
# Pixels that are converted at once: a few megabytes.
_BAND_PX = 1_000_000


def reduced(image: Image.Image, draft_px: int) -> Image.Image:
    """Return a large loaded image at a half, a quarter or an eighth of its size; a smaller one unchanged.

    It is large if both sides are at least twice `draft_px` (0: never). Each pixel is the mean of those that it
    replaces, weighted by their opacity.
    """
    factor = draft_factor(image.size, draft_px)
    if factor == 1:
        return image
    mode = _mode(image)
    small = Image.new(mode, (-(-image.width // factor), -(-image.height // factor)))
    rows = factor * max(1, _BAND_PX // (factor * image.width))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        small.paste(_converted(band, mode).reduce(factor), (0, top // factor))
    return small


def draft_factor(size: tuple[int, int], draft_px: int) -> int:
    """Return 8, 4 or 2, by which both sides can be divided without getting smaller than `draft_px`; otherwise 1."""
    ratio = min(size) // draft_px if draft_px else 1
    return next((factor for factor in _FACTORS if factor <= ratio), 1)


def _mode(image: Image.Image) -> str:
    """Return a mode whose pixels have a mean: palettes and colour keys have none."""
    if image.has_transparency_data:
        return "RGBA"
    return "L" if image.mode in {"1", "L"} else "RGB"


def _converted(band: Image.Image, mode: str) -> Image.Image:
    band = unpremultiplied(band)
    return band if band.mode == mode and "transparency" not in band.info else band.convert(mode)
