"""Images with flat margins: noise in a margin hides no copy."""

import io
import random
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageChops

from support.images import encode

NAME = "letterboxed.png"
BAR = 0.2
# Of the bar: beyond the outer 5 % of the image, which no signature contains.
PIXEL = 0.5

Change = Callable[[Image.Image], bytes]


def letterboxed(photograph: Image.Image, share: float = BAR) -> Image.Image:
    """Return the photograph between two black bars, each of this share of its height."""
    bar = int(share * photograph.height)
    canvas = Image.new("RGB", (photograph.width, photograph.height + 2 * bar))
    canvas.paste(photograph, (0, bar))
    return canvas


def one_pixel(photograph: Image.Image) -> Image.Image:
    image = letterboxed(photograph)
    image.putpixel((image.width // 2, int(PIXEL * BAR * photograph.height)), (12, 12, 12))
    return image


def noisy(photograph: Image.Image) -> Image.Image:
    image = letterboxed(photograph)
    levels = random.Random(1).choices((0, 1, 2), k=3 * image.width * image.height)
    return ImageChops.add(image, Image.frombytes("RGB", image.size, bytes(levels)))


CHANGES: dict[str, Change] = {
    "one pixel": lambda photograph: encode(one_pixel(photograph)),
    "noise": lambda photograph: encode(noisy(photograph)),
    "noise, JPEG 80, half size": lambda photograph: encode(noisy(photograph).reduce(2), "JPEG", quality=80),
    "thinner bars": lambda photograph: encode(letterboxed(photograph, BAR / 2)),
    "no bars": encode,
}


@pytest.fixture(scope="module")
def photograph(photographs: dict[str, bytes]) -> Image.Image:
    with Image.open(io.BytesIO(next(iter(photographs.values())))) as image:
        return image.convert("RGB")


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_noise_in_a_margin_hides_no_copy(stack: Any, photograph: Image.Image, change: Change) -> None:
    original, copy = encode(letterboxed(photograph)), change(photograph)
    stack.add(NAME, original)

    matches = stack.search(copy)
    comparison = stack.ok("POST", "/compare", files={"image1": original, "image2": copy})

    assert [match["filepath"] for match in matches] == [NAME]
    assert comparison[0]["score"] > 55


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_noisy_image_is_found_by_a_clean_copy(stack: Any, photograph: Image.Image, change: Change) -> None:
    stack.add(NAME, change(photograph))

    matches = stack.search(encode(letterboxed(photograph)))

    assert [match["filepath"] for match in matches] == [NAME]
