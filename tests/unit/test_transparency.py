"""Transparent images: the visible pixels choose the background, the same one for every copy."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from common.images.decode import decode
from common.images.signature import distance, is_featureless, score, sign
from support.image_files import bmp_v5, chunk, packed, png
from support.images import encode

SIZE = (240, 180)


def artwork(colour: int, *, size: tuple[int, int] = SIZE) -> Image.Image:
    """Return shapes of one grey on transparent ground, with soft edges."""
    big = Image.new("L", (size[0] * 4, size[1] * 4))
    draw = ImageDraw.Draw(big)
    draw.ellipse((100, 90, 460, 500), fill=255)
    draw.polygon([(500, 600), (700, 120), (900, 640)], fill=200)
    draw.rectangle((520, 60, 880, 100), fill=255)
    image = Image.new("RGBA", size, (colour, colour, colour, 0))
    image.putalpha(big.resize(size, Image.Resampling.LANCZOS))
    return image


def on(image: Image.Image, background: str) -> bytes:
    flat = Image.new("RGB", image.size, background)
    flat.paste(image, mask=image)
    return encode(flat)


def copies(image: Image.Image) -> list[bytes]:
    """Return copies in other sizes and formats; the last ones are lossy."""
    half = image.resize((image.width // 2, image.height // 2))
    plain = Image.merge("RGBA", [band.resize(half.size) for band in image.split()])
    return [
        encode(half),
        encode(plain),
        encode(image.convert("LA")),
        encode(image, "GIF"),
        encode(image.quantize(32)),
        encode(image, "WEBP", quality=60),
        encode(image, "AVIF", quality=60),
    ]


def similarity(one: bytes, other: bytes) -> float:
    return float(score(distance(sign(decode(one).pixels), sign(decode(other).pixels))))


@pytest.mark.parametrize(("colour", "background"), [(255, "black"), (238, "black"), (0, "white"), (90, "white")])
def test_visible_pixels_choose_the_background(colour: int, background: str) -> None:
    image = artwork(colour)

    pixels = decode(encode(image)).pixels

    assert np.abs(pixels.astype(int) - decode(on(image, background)).pixels).max() <= 1
    assert not is_featureless(sign(pixels))


@pytest.mark.parametrize("colour", [255, 238, 0, 128])
def test_every_copy_gets_the_same_background(colour: int) -> None:
    image = artwork(colour)

    scores = [similarity(encode(image), copy) for copy in copies(image)]

    assert min(scores) > 55


def test_hidden_colours_do_not_count() -> None:
    image = artwork(0)
    rgba = np.array(image)
    rgba[rgba[..., 3] == 0] = (255, 255, 255, 0)

    assert similarity(encode(Image.fromarray(rgba)), encode(image)) == 100


def test_an_image_without_visible_pixels_is_white() -> None:
    data = encode(Image.new("RGBA", (30, 20), (255, 255, 255, 0)))

    assert (decode(data).pixels == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_an_opaque_light_image_keeps_its_pixels(kind: str) -> None:
    light = np.random.default_rng(1).integers(230, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(light).convert("RGBA")

    assert np.array_equal(decode(encode(image, kind, lossless=True)).pixels, light)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_a_grey_key_of_any_depth_is_transparent(depth: int, share: float) -> None:
    most = (1 << depth) - 1
    levels = np.tile(np.linspace(0, most, 16).round().astype(np.uint64), (8, 1))
    key = round(share * most) if depth < 16 else int(levels[0, round(share * 15)])

    pixels = decode(png(packed(levels, depth), size=(16, 8), depth=depth, colour_type=0, extra=trns(key))).pixels

    assert np.array_equal(pixels, decode(encode(grey_with_alpha(levels, most, key))).pixels)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_colour_key_hides_exactly_one_colour(depth: int) -> None:
    # The second colour differs in the lowest bit only: in 16 bits, its upper eight bits are equal.
    colours = np.array([[(9_000, 300, 70), (9_000, 300, 71), (65_535, 0, 0)]]) >> (16 - depth if depth == 8 else 0)
    colours[0, 1, 2] = colours[0, 0, 2] + 1
    rows = packed(colours.reshape(1, 9).astype(np.uint64), depth)

    data = png(rows, size=(3, 1), depth=depth, colour_type=2, extra=trns(*colours[0, 0].tolist()))

    first, second, _ = decode(data).pixels[0].tolist()
    assert first == [255, 255, 255]
    assert second == [int(value) >> depth - 8 for value in colours[0, 1]]


@pytest.mark.parametrize("body", [b"\x00", b"\x00\x01\x02", bytes(300)])
def test_a_key_of_a_wrong_length_is_ignored(body: bytes) -> None:
    levels = np.tile(np.arange(16, dtype=np.uint64), (8, 1))
    plain = png(packed(levels, 4), size=(16, 8), depth=4, colour_type=0)

    keyed = png(packed(levels, 4), size=(16, 8), depth=4, colour_type=0, extra=chunk(b"tRNS", body))

    assert np.array_equal(decode(keyed).pixels, decode(plain).pixels)


def test_a_bmp_without_any_alpha_is_opaque() -> None:
    random = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)

    assert np.array_equal(decode(bmp_v5(random, 0)).pixels, random)
    assert np.array_equal(decode(bmp_v5(random, 255)).pixels, random)
    assert not np.array_equal(decode(bmp_v5(random, 1)).pixels, random)


def trns(*values: int) -> bytes:
    return chunk(b"tRNS", b"".join(value.to_bytes(2) for value in values))


def grey_with_alpha(levels: NDArray[np.uint64], most: int, key: int) -> Image.Image:
    grey = (levels.astype(float) / most * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(np.dstack([grey, np.where(levels == key, 0, 255).astype(np.uint8)]))
