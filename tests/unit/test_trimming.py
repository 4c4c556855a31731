"""Robust trimming: which lines at the sides of an image are flat."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from common.images.trimming import trimmed

Pixels = NDArray[np.uint8]
BLACK, GREY, WHITE = 0, 128, 255


def content(height: int = 200, width: int = 300) -> Pixels:
    """Return pixels without a flat line."""
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def framed(
    inside: Pixels, *, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0, shade: int = BLACK
) -> Pixels:
    return np.pad(inside, ((top, bottom), (left, right), (0, 0)), constant_values=shade)


def noisy(pixels: Pixels, level: int) -> Pixels:
    noise = np.random.default_rng(6).integers(-level, level + 1, pixels.shape)
    return np.clip(pixels.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def recompressed(pixels: Pixels, quality: int) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("shade", [BLACK, GREY, WHITE])
@pytest.mark.parametrize(
    "margins",
    [
        {"top": 1},
        {"bottom": 40},
        {"left": 3},
        {"right": 90},
        {"top": 30, "bottom": 31},
        {"left": 70, "right": 71},
        {"top": 5, "bottom": 200, "left": 11, "right": 300},
    ],
    ids=str,
)
def test_flat_margins_are_trimmed(margins: dict[str, int], shade: int) -> None:
    inside = content()

    assert np.array_equal(trimmed(framed(inside, **margins, shade=shade)), inside)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_noise_in_a_margin_is_ignored(level: int) -> None:
    image = noisy(framed(content(), top=40, bottom=50, left=60, right=70, shade=GREY), level)

    assert np.array_equal(trimmed(image), image[40:-50, 60:-70])


def test_single_pixels_in_a_margin_are_ignored() -> None:
    image = framed(content(), top=40, bottom=50)
    image[[0, 7, 39, -1, -50], [0, 299, 150, 20, 21]] = WHITE

    assert np.array_equal(trimmed(image), image[40:-50])


@pytest.mark.parametrize(("outliers", "top"), [(3, 40), (4, 20)])
def test_line_is_flat_with_one_outlier_in_a_hundred(outliers: int, top: int) -> None:
    image = framed(content(width=300), top=40, shade=GREY)
    image[20, 100 : 100 + outliers] = WHITE

    assert np.array_equal(trimmed(image), image[top:])


@pytest.mark.parametrize(("difference", "top"), [(6, 40), (-6, 40), (7, 20), (-7, 20)])
def test_grey_values_may_differ_by_six_levels(difference: int, top: int) -> None:
    image = framed(content(), top=40, shade=GREY)
    image[20, 100:140] = GREY + difference

    assert np.array_equal(trimmed(image), image[top:])


def test_text_in_a_margin_ends_it() -> None:
    image = Image.fromarray(framed(content(), top=60, bottom=60, shade=WHITE))
    ImageDraw.Draw(image).text((20, 20), "Figure 1: a caption in the margin", fill="black")
    pixels = np.asarray(image)
    first_dark = int((pixels < GREY).any(axis=(1, 2)).argmax())

    inside = trimmed(pixels)

    # The first lines of the letters may have too few dark pixels.
    assert inside is not None
    assert len(inside) == pytest.approx(260 - first_dark, abs=3)


@pytest.mark.parametrize("quality", [90, 80, 60])
def test_rings_of_jpeg_stay_within_its_blocks(quality: int) -> None:
    smooth = np.asarray(Image.fromarray(content(20, 30)).resize((304, 200), Image.Resampling.BICUBIC))

    inside = trimmed(recompressed(framed(smooth, top=48, bottom=48, left=64, right=64), quality))

    assert inside is not None
    assert inside.shape[0] == pytest.approx(200, abs=16)
    assert inside.shape[1] == pytest.approx(304, abs=16)


def test_margins_within_margins_are_trimmed() -> None:
    inside = content()
    # A white frame around a black letterbox: no line of the black bars is flat until the white columns are trimmed.
    nested = framed(framed(inside, top=20, bottom=20), top=9, bottom=9, left=9, right=9, shade=WHITE)

    assert np.array_equal(trimmed(nested), inside)


@pytest.mark.parametrize(
    "image",
    [
        content(),
        content(20, 20),
        content(19, 300),
        content(1, 1),
        np.full((200, 300, 3), GREY, np.uint8),
        np.full((5, 5, 3), GREY, np.uint8),
        np.tile(np.arange(256, dtype=np.uint8)[:, np.newaxis, np.newaxis], (1, 256, 3)),
    ],
    ids=["noise", "small noise", "low noise", "pixel", "plain", "small plain", "gradient"],
)
def test_images_without_a_margin_have_none(image: Pixels) -> None:
    assert trimmed(image) is None


@pytest.mark.parametrize(("side", "is_trimmed"), [(20, True), (19, False)])
@pytest.mark.parametrize("turn", [lambda image: image, lambda image: image.swapaxes(0, 1)], ids=["low", "narrow"])
def test_at_least_twenty_pixels_remain(side: int, turn: Callable[[Pixels], Pixels], *, is_trimmed: bool) -> None:
    image = turn(framed(content(side, 200), top=100, bottom=100, left=10, right=10))

    assert (trimmed(image) is not None) == is_trimmed


@pytest.mark.parametrize("size", [(31, 40), (32, 32), (33, 700), (700, 33), (4000, 40)])
def test_margins_are_found_at_any_size(size: tuple[int, int]) -> None:
    inside = content(size[0] - 3, size[1] - 4)

    assert np.array_equal(trimmed(framed(inside, top=1, bottom=2, left=3, right=1, shade=WHITE)), inside)


def test_trimmed_pixels_are_a_view() -> None:
    image = framed(content(), top=40)

    assert np.shares_memory(trimmed(image), image)
