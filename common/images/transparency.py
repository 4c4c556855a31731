"""Transparent images on an opaque background that their visible pixels choose."""

from PIL import Image, ImageStat

# Shares of red, green and blue in lightness, as in the signature.
_LUMA = (0.2125, 0.7154, 0.0721)
# Mean lightness of the visible pixels from which an image is light artwork, which is invisible on white. White logos
# have more than 0.98 and their lossy copies more than 0.94. Most coloured icons have less than 0.8.
_LIGHT = 0.85


def flatten(image: Image.Image) -> Image.Image:
    """Return an image with eight bits a colour as RGB, with transparent parts on its background."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = _with_alpha(image)
    flat = Image.new("RGB", layer.size, _background(layer))
    flat.paste(layer, mask=layer)
    return flat


def unpremultiplied(image: Image.Image) -> Image.Image:
    """Return premultiplied pixels as plain ones, the only conversion that Pillow has for them; others unchanged."""
    return image.convert(image.mode.upper()) if image.mode in {"La", "RGBa"} else image


def _with_alpha(image: Image.Image) -> Image.Image:
    image = unpremultiplied(image)
    return image if image.mode == "RGBA" else image.convert("RGBA")


def _background(layer: Image.Image) -> str:
    """Return black for light artwork, otherwise white.

    Weighted by their opacity, the visible pixels of a resized or re-encoded copy have nearly the same mean.
    """
    *colours, alpha = ImageStat.Stat(layer.convert("RGBa")).mean
    lightness = sum(share * mean for share, mean in zip(_LUMA, colours, strict=True))
    return "black" if alpha and lightness >= _LIGHT * alpha else "white"
