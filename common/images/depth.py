"""Grey images with more than eight bits a pixel, scaled to eight."""

import numpy as np
from PIL import Image

# White of images with more than eight bits a colour: cameras and scanners use 8, 10, 12, 14 or 16.
_WHITES = (255.0, 1_023.0, 4_095.0, 16_383.0, 65_535.0)


def narrow(image: Image.Image) -> Image.Image:
    """Scale a grey image with more than eight bits to eight bits: Pillow would clip it, mostly to plain white.

    No header declares the value of white. It is assumed to be the first of _WHITES that no pixel exceeds, with 1.0
    before them for floating-point pixels, else the brightest pixel. Black is 0, or the darkest pixel if that is lower.
    """
    if not is_wide(image):
        return image
    wide = np.array(image)
    values = np.nan_to_num(wide.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    black, brightest = min(0.0, float(values.min())), float(values.max())
    whites = (1.0, *_WHITES) if wide.dtype.kind == "f" else _WHITES
    scale = 255 / (next((white for white in whites if brightest <= white), brightest) - black)
    # Scale first, then shift: the opposite order would overflow at the extremes of float32.
    values *= scale
    values += 0.5 - black * scale
    scaled = values.clip(0, 255, out=values).astype(np.uint8)
    if "transparency" in image.info:
        scaled[wide == image.info["transparency"]] = 255
    return Image.fromarray(scaled)


def is_wide(image: Image.Image) -> bool:
    """Return whether the image is grey with more than eight bits a pixel."""
    return image.mode in {"I", "F"} or image.mode.startswith("I;16")
