"""BMP: an alpha channel that nobody filled."""

from PIL import Image


def drop_empty_alpha(image: Image.Image) -> Image.Image:
    """Return a loaded BMP without its alpha channel if every value is 0.

    Programs write 0 into bytes that they regard as unused. Viewers ignore the channel then.
    """
    if image.mode == "RGBA" and image.getchannel("A").getbbox() is None:
        return image.convert("RGB")
    return image
