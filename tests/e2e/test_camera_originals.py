"""Originals of cameras: a JPEG of 45 megapixels and 30 MB and a TIFF of 50 MB, with the default limits."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.images import encode
from support.waiting import wait_until

# 45 megapixels, and 50 MB without compression.
JPEG_PX, TIFF_PX = (8192, 5464), (4096, 4096)
GRAIN_PX = (1024, 683)
SIZES = {"camera.jpg": 28_000_000, "scan.tif": 50_000_000}


@pytest.fixture(scope="module")
def originals(photographs: dict[str, bytes]) -> dict[str, bytes]:
    """Two photographs, large and with the grain of a sensor, as files by name."""
    first, second, *_ = (Image.open(io.BytesIO(data)).convert("RGB") for data in photographs.values())
    return {
        "camera.jpg": encode(grainy(first.resize(JPEG_PX)), "JPEG", quality=95),
        "scan.tif": encode(second.resize(TIFF_PX), "TIFF"),
    }


def grainy(image: Image.Image) -> Image.Image:
    """Return an image with noise, which makes its JPEG as large as a camera's."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*GRAIN_PX[::-1], 3), dtype=np.uint8))
    grain = Image.new("RGB", image.size)
    for left in range(0, image.width, GRAIN_PX[0]):
        for top in range(0, image.height, GRAIN_PX[1]):
            grain.paste(noise, (left, top))
    return Image.blend(image, grain, 0.25)


def test_originals_of_cameras_are_added_and_found(stack: Any, originals: dict[str, bytes]) -> None:
    assert all(len(data) > SIZES[name] for name, data in originals.items())
    for name, data in originals.items():
        assert stack.call("POST", "/add", data={"filepath": name}, files={"image": data}).status_code in {200, 202}
    wait_until(lambda: stack.ok("GET", "/count") == [2], "both originals are stored")

    nearest = {name: stack.search(data)[0]["filepath"] for name, data in originals.items()}

    assert nearest == {name: name for name in originals}
