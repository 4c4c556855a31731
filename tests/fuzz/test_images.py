"""Images with a few changed bytes: each has a signature or raises an ImageError, within the limits."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import strategies as st
from PIL import Image

from api.errors import ERRORS
from common.errors import ImageError
from common.images.decode import Limits, decode
from common.images.signature import LENGTH, sign

Fuzz = Callable[..., None]

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
# Low limits: a change of a few bytes matters in a small image, and each is decoded in milliseconds.
LIMITS = Limits(pixels=1_000_000, jpeg_pixels=4_000_000, draft_px=256)
MAX_BYTES = 100_000
SIDE = 48
# Extreme values for the sizes, lengths and counts of image formats.
ODD = (
    b"\x00",
    b"\xff",
    b"\x7f\xff",
    b"\xff\xff",
    b"\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x01\x00\x00",
)


def generated() -> list[bytes]:
    """Return one image in every format and mode that Pillow writes and Match reads."""
    pillow_heif.register_heif_opener()
    image = Image.open(ROOT / "examples" / "images" / "chelsea.jpg").resize((SIDE, SIDE))
    variants: list[tuple[str, str, dict[str, Any]]] = [
        *((kind, "RGB", {}) for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "PPM")),
        ("JPEG", "CMYK", {}), ("JPEG", "L", {"progressive": True}), ("JPEG", "RGB", {"progressive": True}),
        *(("PNG", mode, {}) for mode in ("RGBA", "LA", "P", "1", "I;16")),
        *(("TIFF", "RGB", {"compression": how}) for how in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
        ("TIFF", "F", {}), ("TIFF", "1", {"compression": "group4"}), ("WEBP", "RGBA", {"lossless": True}),
        ("GIF", "RGB", {"save_all": True, "append_images": [image.rotate(90)]}),
        ("PNG", "RGB", {"save_all": True, "append_images": [image.rotate(90)]}),
        ("BMP", "P", {}), ("PPM", "1", {}), ("JPEG", "RGB", {"exif": exif()}),
    ]  # fmt: skip
    return [written(image, *one) for one in variants]


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 6
    return tags


def written(image: Image.Image, kind: str, mode: str, options: dict[str, Any]) -> bytes:
    out = BytesIO()
    (image.convert("L").convert(mode) if mode in {"I;16", "F"} else image.convert(mode)).save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    """Images of every format, and the files of MATCH_TEST_DATA if they exist."""
    paths = [path for name in ("odd", "photos") for path in sorted((DATA / name).glob("*"))[:80]]
    files = [path.read_bytes() for path in paths if path.stat().st_size < MAX_BYTES]
    return [*generated(), *files]


@st.composite
def changed(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Return an image with some bytes replaced, copied, deleted or cut off, mostly near its start."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, min(len(data), 600)) | st.integers(0, len(data)))
        piece = draw(st.sampled_from(ODD) | st.binary(min_size=1, max_size=4))
        match draw(st.sampled_from(("replace", "replace", "replace", "insert", "drop", "copy", "cut"))):
            case "replace":
                data[at : at + len(piece)] = piece
            case "insert":
                data[at:at] = piece
            case "drop":
                del data[at : at + len(piece) * 16]
            case "copy":
                other = draw(st.sampled_from(seeds))
                data[at : at + 64] = other[at : at + 64]
            case _:
                del data[max(at, 20) :]
    return bytes(data)


def test_changed_images(fuzz: Fuzz, seeds: list[bytes]) -> None:
    assert len(seeds) > 20

    def check(data: bytes) -> None:
        try:
            image = decode(data, LIMITS)
        except ImageError as error:
            assert 422 in ERRORS[error.code].statuses
            assert str(error)
            return
        height, width, colours = image.pixels.shape
        assert colours == 3
        assert 0 < height * width <= LIMITS.pixels
        assert image.width * image.height <= LIMITS.jpeg_pixels
        signature = sign(image.pixels)
        assert signature.shape == (LENGTH,)
        assert np.abs(signature).max() <= 2

    fuzz(changed(seeds), check, short=400, long=10_000)
