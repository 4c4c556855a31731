"""Animations are read by their first displayed frame with features."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from common.images.decode import Limits, decode
from common.images.signature import distance, is_featureless, score, sign
from support.image_files import hidden_apng
from support.images import encode

KINDS = ["GIF", "PNG", "WEBP", "AVIF"]


def scene(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Return smooth shapes that survive palettes and lossy coding."""
    random = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(random).resize(size, Image.Resampling.BICUBIC)


def animation(kind: str, frames: list[Image.Image]) -> bytes:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 90} if kind == "AVIF" else {}
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=40, **options)


def fade_in(image: Image.Image, steps: int) -> list[Image.Image]:
    white = Image.new("RGB", image.size, "white")
    return [Image.blend(white, image, step / steps) for step in range(steps + 1)]


def similarity(one: bytes, other: bytes) -> float:
    return float(score(distance(sign(decode(one).pixels), sign(decode(other).pixels))))


@pytest.mark.parametrize("kind", KINDS)
def test_blank_first_frames_are_skipped(kind: str) -> None:
    blank = Image.new("RGB", (120, 90), "white")
    frames = [blank, Image.new("RGB", (120, 90), "black"), scene(1), scene(2)]

    data = animation(kind, frames)

    assert similarity(data, encode(scene(1))) > 80
    assert similarity(data, encode(scene(2))) < 55


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_frame_counts_if_it_has_features(kind: str) -> None:
    data = animation(kind, [scene(1), scene(2)])

    assert similarity(data, encode(scene(1))) > 80


def test_a_frame_counts_if_its_inside_has_features() -> None:
    first = Image.new("RGB", (1000, 1000), "white")
    first.paste(ImageEnhance.Brightness(scene(3, (36, 36))).enhance(0.4), (262, 262))
    # Two spots in the margin keep the boxes of the whole image beside the small one.
    first.putpixel((60, 60), (0, 0, 0))
    first.putpixel((940, 940), (0, 0, 0))

    pixels = decode(animation("PNG", [first, scene(2, first.size)])).pixels

    assert is_featureless(sign(pixels))
    assert np.array_equal(pixels, np.asarray(first))


def test_a_gradient_is_not_a_frame_with_features() -> None:
    gradient = Image.linear_gradient("L").resize((120, 90)).convert("RGB")

    pixels = decode(animation("PNG", [gradient, scene(2)])).pixels

    assert np.array_equal(pixels, np.asarray(scene(2)))


def test_copies_of_a_fade_in_match() -> None:
    frames = fade_in(scene(4), 60)
    small = [frame.resize((60, 45)) for frame in frames]
    dim = [ImageEnhance.Brightness(frame).enhance(0.95) for frame in frames]
    copies = [*(animation(kind, frames) for kind in KINDS), animation("GIF", small), animation("WEBP", dim)]

    scores = [similarity(copy, encode(scene(4))) for copy in copies]

    assert min(scores) > 55


@pytest.mark.parametrize("kind", KINDS)
def test_an_animation_without_features_is_featureless(kind: str) -> None:
    frames = [Image.new("RGB", (40, 30), (value, value, value)) for value in (255, 200, 90)]

    assert is_featureless(sign(decode(animation(kind, frames)).pixels))


def test_the_pixel_limit_bounds_the_decoded_frames() -> None:
    blank = [Image.new("RGB", (120, 90), (value, value, value)) for value in (255, 254, 253)]
    data = animation("GIF", [*blank, scene(1)])

    assert is_featureless(sign(decode(data, Limits(pixels=3 * 120 * 90)).pixels))
    assert not is_featureless(sign(decode(data, Limits(pixels=4 * 120 * 90)).pixels))


def test_a_hidden_default_image_is_skipped() -> None:
    data = hidden_apng(scene(9), [encode(scene(1)), encode(scene(2))])

    assert np.array_equal(decode(data).pixels, np.asarray(scene(1)))


def test_a_hidden_default_image_does_not_shine_through() -> None:
    frame = scene(1).convert("RGBA")
    frame.putalpha(Image.linear_gradient("L").resize(frame.size).point(lambda level: 255 * (level > 99)))
    data = hidden_apng(scene(9).convert("RGBA"), [encode(frame), encode(frame)])

    assert np.array_equal(decode(data).pixels, decode(encode(frame)).pixels)


def test_a_contradictory_animation_shows_its_default_image() -> None:
    data = hidden_apng(scene(9), [encode(scene(1)), encode(scene(2))], declared=7)

    assert np.array_equal(decode(data).pixels, np.asarray(scene(9)))


def test_pages_of_a_tiff_are_not_frames() -> None:
    blank = Image.new("RGB", (40, 30), "white")
    data = encode(blank, "TIFF", save_all=True, append_images=[scene(1, (40, 30))])

    assert (decode(data).pixels == 255).all()


def test_only_the_first_image_of_an_mpo_counts() -> None:
    # A gain map for HDR screens is a second image of this kind.
    gain_map = scene(2).convert("L")
    data = encode(scene(1), "MPO", save_all=True, append_images=[gain_map], quality=95)

    assert similarity(data, encode(scene(1))) > 80
    assert decode(data).pixels.shape == (90, 120, 3)
