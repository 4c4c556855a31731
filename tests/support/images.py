"""Small images as encoded bytes."""

import io
import random
from typing import Any

from PIL import Image, ImageChops


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of the image's file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(*, shade: int = 0, size: tuple[int, int] = (256, 256)) -> bytes:
    """Return a PNG of several gradients: a single one is featureless. One of another shade has other bytes."""
    ramp = Image.linear_gradient("L")
    steps = ImageChops.add_modulo(
        ramp.point(lambda value: 5 * value % 256), ramp.rotate(90).point(lambda value: 3 * value % 256)
    )
    return encode(steps.point(lambda value: max(0, value - shade)).resize(size))


def noise(number: int, *, kind: str = "PNG") -> bytes:
    """Return a small image; those of other numbers are not near-duplicates of it."""
    pixels = Image.frombytes("RGB", (12, 12), random.Random(number).randbytes(12 * 12 * 3))
    return encode(pixels.resize((120, 120), Image.Resampling.BILINEAR), kind)


def upload(data: bytes | None = None, name: str = "cat.png") -> tuple[io.BytesIO, str]:
    """Return a file for a form of Flask's test client; without data it is a gradient."""
    return io.BytesIO(gradient() if data is None else data), name
