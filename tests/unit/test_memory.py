"""Memory of decoding: the estimate from the header bounds the peak of a process, for each format and mode."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.config import Settings
from common.errors import ImageError
from common.images.cost import FIXED_BYTES
from common.images.decode import Limits, decode
from common.images.reduction import draft_factor, reduced
from common.images.signature import distance, sign
from support.commands import run_python
from support.images import encode

MEASURE = Path(__file__).parents[1] / "support/decode_memory.py"
ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
# Buffers and arenas of the libraries, which do not grow with the image.
SLACK_BYTES = 4 * MIB
# Cases of the measurement, so that a shorter output cannot pass.
CASES_MIN = 35


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_stays_below_the_estimate(tmp_path: Path) -> None:
    result = run_python(str(MEASURE), str(tmp_path), environment={"PYTHONPATH": str(ROOT)})

    rows = [json.loads(line) for line in result.stdout.splitlines()]
    for row in rows:
        peak, estimate = (row[name] / row["pixels"] for name in ("peak", "estimate"))
        print(f"{peak:6.1f} bytes/pixel, estimate {estimate:6.1f}: {row['image']}")  # noqa: T201 - the table of the docs
    assert len(rows) >= CASES_MIN, result.stderr
    assert [row["image"] for row in rows if row["peak"] > row["estimate"] + SLACK_BYTES] == []


def test_the_same_pixels_cost_more_in_a_dearer_format() -> None:
    limits = Limits(memory_bytes=FIXED_BYTES + 20 * MIB)
    cheap, dear = Image.new("L", (1000, 1000)), Image.new("RGBA", (1000, 1000), (1, 2, 3, 4))

    assert decode(encode(cheap, "PNG"), limits).width == 1000
    with pytest.raises(ImageError, match=r"1000 x 1000 .*MATCH_DECODE_MEMORY_BYTES") as caught:
        decode(encode(dear, "WEBP", lossless=True), limits)
    assert caught.value.code == "image_too_large_to_decode"


def test_the_bomb_of_a_hundred_bytes_is_rejected() -> None:
    data = encode(Image.new("RGBA", (10_000, 5_000), (1, 2, 3, 4)), "WEBP", lossless=True, quality=0, method=0)

    with pytest.raises(ImageError) as caught:
        decode(data)

    assert len(data) < 100
    assert caught.value.code == "image_too_large_to_decode"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP"])
def test_a_large_image_is_reduced_like_a_jpeg_draft(photo: NDArray[np.uint8], kind: str) -> None:
    big = Image.fromarray(photo).resize((2600, 2100))

    image = decode(encode(big, kind))
    draft = decode(encode(big, "JPEG", quality=90))

    assert (image.width, image.height) == (2600, 2100)
    assert image.pixels.shape == draft.pixels.shape == (1050, 1300, 3)
    assert distance(sign(image.pixels), sign(draft.pixels)) < 0.05


def test_a_smaller_image_keeps_every_pixel(photo: NDArray[np.uint8]) -> None:
    image = Image.fromarray(photo).resize((2047, 2100))

    assert np.array_equal(decode(encode(image)).pixels, np.asarray(image))


def test_drafts_can_be_disabled() -> None:
    data = encode(Image.new("L", (2100, 2100)))

    assert decode(data, Limits(draft_px=0)).pixels.shape == (2100, 2100, 3)


@pytest.mark.parametrize(
    ("size", "factor"), [((2047, 9999), 1), ((2048, 2048), 2), ((4096, 5000), 4), ((20_000, 9000), 8)]
)
def test_both_sides_decide_the_reduction(size: tuple[int, int], factor: int) -> None:
    assert draft_factor(size, 1024) == factor


def test_transparent_pixels_do_not_count_in_a_mean() -> None:
    image = Image.new("RGBA", (4, 2), (255, 255, 255, 0))
    image.paste((200, 0, 0, 255), (0, 0, 1, 2))

    red, green, blue, alpha = reduced(image, 1).getpixel((0, 0))  # type: ignore[misc]

    assert (green, blue, alpha) == (0, 0, 128)
    assert red == pytest.approx(200, abs=2)


def test_palettes_and_keys_are_reduced_as_colours() -> None:
    palette = Image.new("RGB", (4, 4), "red").quantize(2)
    key = Image.new("L", (4, 4), 7)
    key.info["transparency"] = 7

    assert reduced(palette, 2).getpixel((0, 0)) == (255, 0, 0)
    assert reduced(key, 2).getpixel((0, 0))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_camera_jpeg_is_decoded_within_the_default_limits(*, progressive: bool) -> None:
    # Encoded fast, as it is plain; segments of metadata fill it up to the size of a photograph.
    plain = encode(Image.new("RGB", (8192, 5504), "gray"), "JPEG", subsampling="4:2:0", progressive=progressive)
    segment = b"\xff\xe2\xff\xff" + bytes(65_533)
    data = plain[:2] + segment * 460 + plain[2:]

    image = decode(data)

    assert 30_000_000 < len(data) < Settings().max_image_bytes
    assert (image.width, image.height) == (8192, 5504)


def test_a_large_tiff_is_decoded_within_the_default_limits() -> None:
    data = encode(Image.new("RGB", (4096, 4096), "gray"), "TIFF")

    image = decode(data)

    assert 50_000_000 < len(data) < Settings().max_image_bytes
    assert (image.width, image.height) == (4096, 4096)
