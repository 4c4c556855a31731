"""Decoding and turning without Pillow, whose pixels are the same."""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from common.errors import ImageError
from common.images.limits import Limits
from common.images.turbo import decode_jpeg
from common.images.upright import turned
from support.images import encode

SCAN = b"\xff\xda"
END = b"\xff\xd9"
SAMPLINGS = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440]


def by_turbo(data: bytes, scale: int = 1) -> NDArray[np.uint8] | None:
    """Return the pixels of an image, or of a draft of it; None for a file that Pillow has to read."""
    try:
        decoded = decode_jpeg(data, limits(data, scale))
    except ImageError:
        return None
    return None if decoded is None else decoded[0]


def by_pillow(data: bytes, scale: int = 1) -> NDArray[np.uint8]:
    image = JpegImagePlugin.JpegImageFile(BytesIO(data))
    image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
    return np.asarray(image.convert("RGB"))


def limits(data: bytes, scale: int) -> Limits:
    """Return limits by which the image is reduced to a part of its sides."""
    if scale == 1:
        return Limits(draft_px=0)
    return Limits(draft_px=min(Image.open(BytesIO(data)).size) // scale)


@st.composite
def images(draw: st.DrawFn, *, smallest: int) -> NDArray[np.uint8]:
    """Return noise of any small size; coarse noise has edges as well as areas."""
    height, width, grain = draw(st.integers(smallest, 70)), draw(st.integers(smallest, 70)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    coarse = random.integers(0, 256, (height // grain + 1, width // grain + 1, 3), dtype=np.uint8)
    return coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width]


@st.composite
def jpegs(draw: st.DrawFn, *, smallest: int = 1) -> bytes:
    """Return a JPEG in any coding that the two encoders have."""
    pixels, quality = draw(images(smallest=smallest)), draw(st.integers(1, 100))
    is_progressive, restarts = draw(st.booleans()), draw(st.sampled_from([0, 0, 1, 5]))
    kind = draw(st.sampled_from(["colour", "grey", "rgb", "rare sampling"]))
    if kind == "rare sampling":
        options = (cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, int(is_progressive))
        sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, draw(st.sampled_from(SAMPLINGS)))
        return cv2.imencode(".jpg", pixels, (*options, *sampling, cv2.IMWRITE_JPEG_RST_INTERVAL, restarts))[1].tobytes()
    return encode(
        Image.fromarray(pixels).convert("L" if kind == "grey" else "RGB"),
        "JPEG",
        quality=quality,
        subsampling=0 if kind == "rgb" else draw(st.integers(0, 2)),
        keep_rgb=kind == "rgb",
        progressive=is_progressive,
        restart_marker_blocks=restarts,
    )


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a JPEG with other bytes, or without some, anywhere."""
    data = draw(jpegs())
    start = draw(st.integers(2, len(data)))
    end = draw(st.integers(start, min(len(data), start + 40)))
    marker = st.sampled_from([0xC0, 0xC4, 0xD0, 0xD8, 0xD9, 0xDA, 0xDB, 0xE1, 0xFF]).map(
        lambda code: bytes([0xFF, code])
    )
    return data[:start] + draw(st.binary(max_size=20) | marker) + data[end:]


@given(data=jpegs())
def test_pixels_equal_pillows_in_every_coding(data: bytes) -> None:
    pixels = by_turbo(data)

    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(data))


@given(data=jpegs(smallest=16), scale=st.sampled_from([2, 4, 8]))
def test_drafts_equal_pillows_in_every_coding(data: bytes, scale: int) -> None:
    pixels = by_turbo(data, scale)

    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(data, scale))


@given(data=damaged())
def test_pixels_of_damaged_files_are_ones_that_pillow_accepts(data: bytes) -> None:
    pixels = by_turbo(data)

    assert pixels is None or np.array_equal(pixels, by_pillow(data))


@pytest.mark.parametrize("is_progressive", [False, True])
def test_a_file_without_its_end_is_left_to_pillow(photo: NDArray[np.uint8], *, is_progressive: bool) -> None:
    data = encode(Image.fromarray(photo), "JPEG", progressive=is_progressive)

    assert by_turbo(data) is not None
    assert by_turbo(data.removesuffix(END)) is None
    assert by_turbo(data[: len(data) // 2]) is None


@pytest.mark.parametrize("marker", [b"\xff\xc4", b"\xff\xc0", b"\xff\xda", b"\xff\xd8"])
def test_a_segment_within_a_scan_is_left_to_pillow(photo: NDArray[np.uint8], marker: bytes) -> None:
    data = encode(Image.fromarray(photo), "JPEG")
    middle = (data.index(SCAN) + len(data)) // 2

    assert by_turbo(data[:middle] + marker + data[middle:]) is None


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_only_files_for_print_are_left_to_pillow(photo: NDArray[np.uint8], mode: str) -> None:
    data = encode(Image.fromarray(photo).convert(mode), "JPEG")

    assert (by_turbo(data) is None) == (mode == "CMYK")


def test_bytes_after_the_end_change_nothing(photo: NDArray[np.uint8]) -> None:
    data = encode(Image.fromarray(photo), "JPEG")

    others = [by_turbo(data + rest) for rest in (bytes(100), b"text", data, SCAN + bytes(100))]

    assert all(np.array_equal(other, by_pillow(data)) for other in others)


def test_real_photographs_are_decoded_like_pillow(real_photos: list[Path]) -> None:
    def differs(path: Path) -> bool:
        data = path.read_bytes()
        return not np.array_equal(by_turbo(data), by_pillow(data))

    assert [path.name for path in real_photos[::8] if differs(path)] == []


@pytest.mark.parametrize("turn", [None, *Image.Transpose])
def test_turned_pixels_equal_pillows(photo: NDArray[np.uint8], turn: Image.Transpose | None) -> None:
    image = Image.fromarray(photo)
    expected = image if turn is None else image.transpose(turn)

    assert np.array_equal(turned(photo, turn), np.asarray(expected))
