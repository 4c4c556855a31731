"""Decoding: images upright, on white and within limits; everything else raises an error with a reason."""

import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from common.errors import ImageError
from common.images.decode import Limits, decode
from common.images.formats import SNIFFED_BYTES, looks_like_image
from common.images.signature import LENGTH, distance, expand, is_featureless, sign
from support.commands import run_python
from support.images import encode

Oracle = Callable[[NDArray[np.uint8]], NDArray[np.int8]]

PLAIN_MODES = [("1", "PNG"), ("L", "PNG"), ("P", "GIF"), ("RGB", "BMP"), ("RGB", "WEBP"), ("RGB", "PPM")]
PRINT_MODES = [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("LAB", "TIFF")]
ALPHA_MODES = [("LA", "PNG"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("PA", "TIFF"), ("RGBA", "TIFF"), ("RGBA", "AVIF")]
WIDE_MODES = [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF"), ("I", "TIFF"), ("F", "TIFF")]
OUTCOMES = {
    "decoded",
    "empty_image",
    "not_an_image",
    "unsupported_format",
    "too_many_pixels",
    "truncated_image",
    "broken_image",
}
SMALL = Limits(pixels=100_000, jpeg_pixels=100_000)


def image_of(mode: str, size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Return noise in any mode."""
    random = np.random.default_rng(seed)
    if mode in {"RGBA", "LA", "PA"}:
        return Image.fromarray(random.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)).convert(mode)
    if mode.startswith("I") or mode == "F":
        dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[mode]
        return Image.fromarray(random.integers(0, 65_536, (size[1], size[0])).astype(dtype))
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def error_code(data: bytes, limits: Limits = SMALL) -> str:
    """Return the code of the error that these bytes must raise."""
    with pytest.raises(ImageError) as caught:
        decode(data, limits)
    return caught.value.code


def outcome(data: bytes, limits: Limits = SMALL) -> str:
    """Return "decoded", or the code of the ImageError; any other exception fails the test."""
    try:
        decode(data, limits)
    except ImageError as error:
        return error.code
    return "decoded"


@given(
    mode_and_kind=st.sampled_from(PLAIN_MODES + PRINT_MODES + ALPHA_MODES + WIDE_MODES),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_any_mode_and_size_decodes_to_rgb(mode_and_kind: tuple[str, str], size: tuple[int, int]) -> None:
    mode, kind = mode_and_kind

    image = decode(encode(image_of(mode, size), kind))

    assert (image.pixels.shape, image.pixels.dtype) == ((size[1], size[0], 3), np.uint8)
    assert (image.width, image.height) == size
    assert sign(image.pixels).shape == (LENGTH,)


@pytest.mark.parametrize(("mode", "kind"), PLAIN_MODES + PRINT_MODES)
def test_an_image_without_alpha_decodes_as_in_image_match(mode: str, kind: str) -> None:
    data = encode(image_of(mode, (60, 40)), kind)

    assert np.array_equal(decode(data).pixels, np.asarray(Image.open(BytesIO(data)).convert("RGB")))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_real_photographs_decode_as_in_image_match(real_photos: list[Path]) -> None:
    def differs(path: Path) -> bool:
        return not np.array_equal(decode(path.read_bytes()).pixels, np.asarray(Image.open(path).convert("RGB")))

    assert [path.name for path in real_photos if differs(path)] == []


def test_signature_of_a_file_equals_image_matchs(photo: NDArray[np.uint8], oracle: Oracle) -> None:
    data = encode(Image.fromarray(photo), "JPEG")

    signature = expand(sign(decode(data).pixels))

    assert np.array_equal(signature, oracle(data, bytestream=True))


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "HEIF"])
def test_modern_formats_are_read(photo: NDArray[np.uint8], kind: str) -> None:
    pillow_heif.register_heif_opener()
    data = encode(Image.fromarray(photo), kind, quality=90)

    assert distance(sign(decode(data).pixels), sign(photo)) < 0.1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_an_image_upright(orientation: int) -> None:
    upright = image_of("RGB", (40, 30))
    undo = [None, None, 0, 3, 1, 5, 2, 6, 4][orientation]
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation

    image = decode(encode(stored, "PNG", exif=exif))

    assert np.array_equal(image.pixels, np.asarray(upright))
    assert (image.width, image.height) == (40, 30)


def test_broken_exif_is_ignored() -> None:
    image = image_of("RGB", (40, 30))

    decoded = decode(encode(image, "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff junk"))

    assert np.array_equal(decoded.pixels, np.asarray(image))


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF")])
def test_transparent_pixels_become_white_and_opaque_ones_stay(mode: str, kind: str) -> None:
    image = Image.new("RGBA", (20, 10), (40, 40, 40, 255))
    image.paste((10, 10, 10, 0), (0, 0, 10, 10))

    pixels = decode(encode(image.convert(mode), kind, lossless=True)).pixels

    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 10:] == 40).all()


def test_half_transparent_black_is_grey() -> None:
    pixels = decode(encode(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG")).pixels

    assert pixels[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize("transparency", [3, bytes([255, 255, 255, 0])])
def test_a_transparent_colour_of_a_palette_is_white(transparency: int | bytes) -> None:
    image = Image.new("P", (20, 10), 3)
    image.putpalette([value for grey in (0, 50, 100, 150) for value in [grey] * 3])
    image.paste(1, (10, 0, 20, 10))

    pixels = decode(encode(image, "PNG", transparency=transparency)).pixels

    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 10:] == 50).all()


def test_a_transparent_grey_of_16_bits_is_white() -> None:
    wide = np.full((10, 20), 20_000, dtype=np.uint16)
    wide[:, 10:] = 40_000

    pixels = decode(encode(Image.fromarray(wide), "PNG", transparency=20_000)).pixels

    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 10:] == 156).all()


@pytest.mark.parametrize(
    ("dtype", "white"), [("<u2", 65_535), (">u2", 65_535), ("<u2", 4_095), ("<i4", 65_535), ("<i4", 255), ("<f4", 1)]
)
def test_wide_pixels_are_scaled_to_eight_bits(dtype: str, white: int) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    wide = (grey / 255 * white + (0 if dtype == "<f4" else 0.5)).astype(dtype)

    pixels = decode(encode(Image.fromarray(wide), "TIFF")).pixels

    assert np.array_equal(pixels[..., 0], grey)


@pytest.mark.parametrize("values", [[np.nan, 0.5], [-np.inf, np.inf], [-3e38, 3e38], [1e-45, 0], [-1e6, 70_000]])
def test_floats_of_any_size_give_pixels(values: list[float]) -> None:
    image = Image.fromarray(np.array([values] * 2, dtype=np.float32))

    assert decode(encode(image, "TIFF")).pixels.shape == (2, 2, 3)


def test_a_draft_has_nearly_the_same_signature(photo: NDArray[np.uint8]) -> None:
    big = Image.fromarray(photo).resize((2600, 2100))
    data = encode(big, "JPEG", quality=90)

    draft = decode(data)
    whole = decode(data, Limits(draft_px=0))

    assert (draft.width, draft.height) == (2600, 2100)
    assert draft.pixels.shape == (1050, 1300, 3)
    assert whole.pixels.shape == (2100, 2600, 3)
    assert distance(sign(draft.pixels), sign(whole.pixels)) < 0.1


def test_a_small_jpeg_is_decoded_without_a_draft() -> None:
    data = encode(Image.new("RGB", (2047, 4000)), "JPEG")

    assert decode(data).pixels.shape == (4000, 2047, 3)


def test_too_many_pixels_are_rejected_by_the_header() -> None:
    data = encode(Image.new("RGB", (400, 300)), "PNG")

    assert error_code(data[:60], Limits(pixels=119_999)) == "too_many_pixels"
    assert decode(data, Limits(pixels=120_000)).width == 400


def test_limits_apply_to_one_image_only() -> None:
    data = encode(Image.new("L", (10_000, 9_500)), "PNG")
    wide = Limits(pixels=96_000_000)

    codes = [outcome(data, limits) for limits in (wide, SMALL, wide)]

    assert codes == ["decoded", "too_many_pixels", "decoded"]


def test_a_baseline_jpeg_may_be_bigger_than_others() -> None:
    limits = Limits(pixels=10_000, jpeg_pixels=40_000, draft_px=50)
    baseline = encode(Image.new("RGB", (200, 200)), "JPEG")
    progressive = encode(Image.new("RGB", (200, 200)), "JPEG", progressive=True)
    # The first scan has fewer colours than the image, so more scans must follow.
    several = baseline.replace(b"\xff\xda\x00\x0c\x03", b"\xff\xda\x00\x08\x01")

    assert decode(baseline, limits).pixels.shape == (50, 50, 3)
    assert error_code(progressive, limits) == "too_many_pixels"
    assert error_code(several, limits) == "too_many_pixels"


def test_a_draft_over_the_limit_is_rejected() -> None:
    thin = encode(Image.new("RGB", (2_000, 20)), "JPEG")

    assert error_code(thin, Limits(pixels=10_000, jpeg_pixels=100_000, draft_px=50)) == "too_many_pixels"


def test_a_jpeg_with_too_many_scans_is_rejected() -> None:
    data = encode(Image.new("RGB", (50, 50)), "JPEG", progressive=True)
    scan = data[data.rfind(b"\xff\xda") : -2]

    assert error_code(data[:-2] + scan * 200 + data[-2:]) == "unsupported_format"


def test_tiff_tiles_larger_than_the_image_are_rejected() -> None:
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16_384, 323: 16_384, 324: 8, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())

    assert error_code(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(8)) == "too_many_pixels"


def test_formats_with_slow_decoders_have_a_lower_limit() -> None:
    header = b"P6 1001 1000 254\n"

    assert error_code(header + bytes(3_003_000), Limits()) == "too_many_pixels"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_image"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "not_an_image"),
        (b'<!DOCTYPE html><html><body><svg xmlns="http://www.w3.org/2000/svg"/></body></html>', "not_an_image"),
        (b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><svg/></html>', "not_an_image"),
        (b"<!-- <svg> --><html>", "not_an_image"),
        (b'{"error": "not found"}', "not_an_image"),
        (b'{"icon": "<svg/>"}', "not_an_image"),
        (b"\x00" * 100, "not_an_image"),
        (b"\x89PNG", "not_an_image"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
        (b'\xef\xbb\xbf<!-- made by -->\n<!DOCTYPE svg PUBLIC "a" "b" [<!ENTITY c "d">]>\n<SVG>', "unsupported_format"),
        (b"<svg:svg>", "unsupported_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_format"),
        (b"%PDF-1.7\n", "unsupported_format"),
        (b"\x00\x00\x01\x00\x01\x00", "unsupported_format"),
        (b"\xff\xd8\xff" + bytes(100), "broken_image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "broken_image"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(100), "broken_image"),
    ],
)
def test_invalid_images_are_rejected_with_a_reason(data: bytes, code: str) -> None:
    assert error_code(data) == code


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
def test_an_image_without_its_end_is_truncated(kind: str) -> None:
    data = encode(image_of("RGB", (80, 80)), kind)

    assert error_code(data[: len(data) // 2]) == "truncated_image"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(data=st.data())
def test_damaged_bytes_decode_or_raise_an_image_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM"]))
    damaged = bytearray(encode(image_of("RGB", (24, 16)), kind))
    for index in data.draw(st.lists(st.integers(0, min(200, len(damaged) - 1)), max_size=6)):
        damaged[index] = data.draw(st.integers(0, 255))

    assert outcome(bytes(damaged)) in OUTCOMES


@given(tail=st.binary(max_size=200), head=st.sampled_from([b"II*\x00", b"BM", b"GIF89a", b"P5\n", b"\xff\xd8\xff\xe1"]))
def test_known_headers_with_any_tail_are_recognized(head: bytes, tail: bytes) -> None:
    assert outcome(head + tail) in OUTCOMES - {"not_an_image", "empty_image"}


def test_error_texts_contain_no_internals() -> None:
    with pytest.raises(ImageError) as caught:
        decode(b"\x89PNG\r\n\x1a\n" + bytes(100))

    assert str(caught.value) == "the PNG image is broken, or of an unsupported variant"


def test_lack_of_memory_has_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_image: Image.Image) -> None:
        raise MemoryError

    data = encode(image_of("RGB", (8, 8)), "BMP")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", fail)

    assert error_code(data) == "image_too_large_to_decode"


def test_many_threads_may_decode_at_once(photo: NDArray[np.uint8]) -> None:
    files = [encode(Image.fromarray(photo).resize((300, 200)), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF")] * 8
    alone = [decode(data).pixels for data in files]

    with ThreadPoolExecutor(8) as pool:
        together = [image.pixels for image in pool.map(decode, files)]

    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM"])
def test_images_are_recognized_by_their_first_bytes(kind: str) -> None:
    data = encode(image_of("RGB", (8, 8)), kind)

    assert looks_like_image(data[:SNIFFED_BYTES])


@pytest.mark.parametrize("head", [b"", b"<html>", b"<svg xmlns=", b"%!PS-Adobe", b"PK\x03\x04", b"RIFF....WAVE"])
def test_other_first_bytes_are_not_an_image(head: bytes) -> None:
    assert not looks_like_image(head)


ONE_AFTER_ANOTHER = """
import json, resource, sys, warnings
from pathlib import Path
from common.errors import ImageError
from common.images.decode import decode
from common.images.signature import sign
warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
outcomes = {}
for path in map(Path, sys.argv[1:]):
    try:
        outcomes[path.name] = "signature" if sign(decode(path.read_bytes()).pixels).any() else "featureless"
    except ImageError as error:
        outcomes[path.name] = error.code
# Linux only; getrusage's maximum would start with the peak of the process that started this one.
status = Path("/proc/self/status")
peaks = [line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line] if status.exists() else []
print(json.dumps([outcomes, [int(peak) // 1024 for peak in peaks]]))
"""


def test_odd_files_are_decoded_or_rejected_in_bounded_memory(odd_files: list[Path]) -> None:
    done = run_python("-c", ONE_AFTER_ANOTHER, *map(str, odd_files))

    outcomes, peaks_mib = json.loads(done.stdout)
    assert outcomes.keys() == {path.name for path in odd_files}
    assert {outcomes[name] for name in ("hopper.jpg", "hopper.heif", "hopper.avif", "frozenpond.mpo")} == {"signature"}
    assert outcomes["decompression_bomb.gif"] == outcomes["reallybig.bmp"] == "too_many_pixels"
    assert all(peak < 300 for peak in peaks_mib)


def test_copies_turned_by_exif_have_one_signature(odd_files: list[Path]) -> None:
    copies = [path for path in odd_files if path.name.startswith("hopper_orientation_") and path.suffix == ".jpg"]

    first, *others = [sign(decode(path.read_bytes()).pixels) for path in copies]

    assert not is_featureless(first)
    assert max(distance(first, other) for other in others) < 0.3
