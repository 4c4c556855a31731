"""Faults in image files: those that no pixel depends on are read over; missing data raise truncated_image."""

import struct
import zlib
from itertools import pairwise
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from common.errors import ImageError
from common.images.decode import decode
from support.image_files import chunk, with_chunk
from support.images import encode

XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def texture(mode: str = "RGB", size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Return smooth colours with detail in every part, without the middle grey that decoders use as a filler."""
    random = np.random.default_rng(5).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(random).resize(size, Image.Resampling.BICUBIC)
    image.paste((20, 200, 60), (size[0] - 12, size[1] - 12, *size))
    return image.convert(mode)


def outcome(data: bytes) -> str:
    try:
        decode(data)
    except ImageError as error:
        return error.code
    return "decoded"


def damaged(part: bytes) -> bytes:
    """Return a PNG chunk with a wrong checksum."""
    return part[:-1] + bytes([part[-1] ^ 1])


@pytest.mark.parametrize(
    "extra",
    [
        damaged(chunk(b"tEXt", b"Comment\x00hello")),
        damaged(chunk(b"tRNS", bytes(6))),
        damaged(chunk(b"acTL", bytes(8))),
        chunk(b"pHYs", b"\x00"),
        chunk(b"gAMA", b""),
        chunk(b"iCCP", b"name\x00\x07not a profile"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zlib.compress(bytes(3_000_000))),
        chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(3_000_000))),
        chunk(b"tIME", b"\xff"),
        chunk(b"prVt", bytes(100)),
    ],
    ids=lambda extra: extra[4:8].decode(),
)
def test_faults_in_chunks_without_pixels_are_read_over(extra: bytes) -> None:
    data = encode(texture())

    assert np.array_equal(decode(with_chunk(data, extra)).pixels, np.asarray(texture()))
    assert np.array_equal(decode(data[:-12] + extra + data[-12:]).pixels, np.asarray(texture()))


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT", b"IEND"])
def test_a_fault_in_a_critical_chunk_is_an_error(kind: bytes) -> None:
    data = encode(texture().quantize(16))
    at = data.index(kind)
    (length,) = struct.unpack(">I", data[at - 4 : at])
    end = at + 4 + length + 4

    assert outcome(data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:]) == "broken_image"


def test_xmp_does_not_turn_an_image() -> None:
    image = texture()
    files = [encode(image, kind, xmp=XMP, lossless=True) for kind in ("WEBP", "JPEG", "AVIF")]
    files.append(encode(image, "TIFF", tiffinfo={700: XMP}))
    text = b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + XMP
    files.append(with_chunk(encode(image), chunk(b"iTXt", text)))

    decoded = [decode(data) for data in files]

    assert {(one.width, one.height) for one in decoded} == {image.size}
    assert {one.pixels.shape for one in decoded} == {(72, 96, 3)}


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "TIFF"])
def test_exif_turns_an_image_with_other_xmp(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    data = encode(texture(), kind, exif=exif, xmp=XMP)

    assert decode(data).pixels.shape == (96, 72, 3)


WHOLE = [
    ("JPEG", "RGB", {}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "RGB", {"restart_marker_rows": 1}),
    ("PNG", "RGB", {}),
    ("PNG", "P", {}),
    ("GIF", "P", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("AVIF", "RGB", {}),
    ("HEIF", "RGB", {}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("PPM", "RGB", {}),
    ("PPM", "1", {}),
    *(("TIFF", "RGB", {"compression": how}) for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
    *(("TIFF", "1", {"compression": how}) for how in ("group3", "group4")),
]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("kind", "mode", "options"), WHOLE)
def test_an_image_cut_short_is_truncated(kind: str, mode: str, options: dict[str, Any]) -> None:
    pillow_heif.register_heif_opener()
    data = encode(texture(mode), kind, **options)

    outcomes = {share: outcome(data[: len(data) * share // 100]) for share in (5, 20, 50, 80, 90, 98)}

    assert outcome(data) == "decoded"
    assert set(outcomes.values()) == {"truncated_image"}, outcomes


JPEGS = [option for kind, _, option in WHOLE if kind == "JPEG"] + [{"optimize": True}]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEGS)
def test_a_complete_jpeg_without_its_end_marker_is_read(mode: str, options: dict[str, Any]) -> None:
    data = encode(texture(mode), "JPEG", **options)
    expected = decode(data).pixels

    endings = [b"", b"\xff", bytes(300), b"\xff\xd9" + bytes(300), bytes(300) + b"\xff\xd9"]

    assert all(np.array_equal(decode(data[:-2] + ending).pixels, expected) for ending in endings)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"optimize": True}])
def test_a_jpeg_whose_scan_ends_early_is_truncated(options: dict[str, Any], mode: str, share: float) -> None:
    data = encode(texture(mode), "JPEG", **options)
    cut = data[: int(len(data) * share)]
    lost = len(data) - len(cut)

    fills = [b"\xff\xd9", bytes(lost), bytes(lost - 2) + b"\xff\xd9", bytes(100 * lost) + b"\xff\xd9"]

    assert {outcome(cut + fill) for fill in fills} == {"truncated_image"}


def test_a_progressive_jpeg_without_later_scans_is_truncated() -> None:
    data = encode(texture(), "JPEG", progressive=True)
    scans = [index for index in range(len(data)) if data.startswith(b"\xff\xda", index)]

    within = [data[: (one + other) // 2] + b"\xff\xd9" for one, other in pairwise([*scans, len(data)])]
    between = [data[:scan] for scan in scans[1:]]

    assert {outcome(cut) for cut in within + between} == {"truncated_image"}


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_progressive_jpeg_with_half_a_scan_is_truncated(mode: str) -> None:
    data = encode(texture(mode, (320, 240)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda") + 40

    outcomes = [outcome(data[:end].removesuffix(b"\xff") + b"\xff\xd9") for end in range(start, len(data) - 10, 97)]

    assert set(outcomes) == {"truncated_image"}


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("colour", ["white", "black", (128, 128, 128), (127, 128, 128)])
def test_a_jpeg_with_a_flat_end_is_complete(options: dict[str, Any], colour: Any) -> None:
    image = texture(size=(320, 240))
    image.paste(colour, (0, 60, 320, 240))

    assert outcome(encode(image, "JPEG", **options)) == "decoded"


def test_a_tiff_without_its_values_is_truncated() -> None:
    # Pillow writes the directory before the pixels, and libtiff behind them, with the values at the end.
    data = encode(texture(), "TIFF", compression="tiff_lzw")

    assert {outcome(data[:-count]) for count in (1, 4, 20)} == {"truncated_image"}


def test_a_directory_beyond_any_file_is_truncated() -> None:
    assert outcome(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**64 - 1)) == "truncated_image"


@pytest.mark.parametrize("width", [1, 7])
def test_rle_bitmaps_cut_short_are_truncated(width: int) -> None:
    runs = b"".join(bytes([width, level]) + b"\x00\x00" for level in range(100)) + b"\x00\x01"
    palette = b"".join(bytes([level, 0, level, 0]) for level in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, width, 100, 1, 8, 1, len(runs), 0, 0, 256, 0) + palette
    data = struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(runs), 0, 0, 14 + len(header)) + header + runs

    assert outcome(data) == "decoded"
    assert outcome(data[:-200]) == "truncated_image"
