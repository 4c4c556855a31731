"""Transparent images on an opaque background."""

from PIL import Image


def flatten(image: Image.Image) -> Image.Image:
    """Return an image with eight bits a colour as RGB, with transparent parts on white."""
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    return image if image.mode == "RGB" else image.convert("RGB")
