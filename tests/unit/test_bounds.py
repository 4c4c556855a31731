"""Bounds on the parts of image files: wasteful files are rejected before a decoder runs, and real ones are not."""

import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from common.errors import ImageError
from common.images.bounds import check_bounds
from common.images.decode import decode
from support.images import encode

SIZE = (16, 16)
# Parts in the wasteful files: above every limit for their sizes.
MANY = 400_000


def plain(kind: str) -> bytes:
    return encode(Image.new("RGB", SIZE), kind)


def segment(marker: int, payload: bytes = b"") -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(payload)) + payload


def jpeg_with(inserted: bytes, *, mode: str = "RGB") -> bytes:
    whole = encode(Image.new(mode, SIZE), "JPEG")
    return whole[:2] + inserted + whole[2:]


def chunk(kind: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_with(inserted: bytes, *, at: int = 33) -> bytes:
    """Return a PNG with chunks after its header, or at another position."""
    whole = plain("PNG")
    return whole[:at] + inserted + whole[at:]


def gif_with(inserted: bytes) -> bytes:
    """Return a GIF with blocks before its first frame."""
    whole = plain("GIF")
    begin = 13 + 3 * 2 ** ((whole[10] & 7) + 1)
    return whole[:begin] + inserted + whole[begin:]


def tiff(tags: list[tuple[int, int, int, int]], *, order: str = "<", after: int = 0, rest: bytes = b"") -> bytes:
    """Return a TIFF of one directory: tag, type, count and value of each entry."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    return head + entries + struct.pack(f"{order}I", after) + rest


def big_tiff(count: int) -> bytes:
    return b"II+\0" + struct.pack("<HHQQHHQQQ", 8, 0, 16, 1, 273, 16, count, 0, 0)


def tiff_pages(count: int) -> bytes:
    offsets = [8 + 6 * page for page in range(count)] + [0]
    pages = b"".join(struct.pack("<HI", 0, following) for _, following in pairwise(offsets))
    return b"II*\0" + struct.pack("<I", 8) + pages


def compressed_bmp(codes: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 1024) + header + bytes(1024) + codes


BLOCKS_OF_PHOTOSHOP = segment(0xED, b"Photoshop 3.0\0" + (b"8BIM" + bytes(8)) * 5_000)
PROFILE = chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(1_000_000)))

WASTEFUL = {
    "JPEG, empty segments": jpeg_with(segment(0xE5) * 2_001),
    "JPEG, Exif in many segments": jpeg_with(segment(0xE1, b"Exif\0\0MM\0*" + bytes(20)) * 65),
    "JPEG, Photoshop's blocks": jpeg_with(BLOCKS_OF_PHOTOSHOP * 3, mode="CMYK"),
    "JPEG, fill bytes": jpeg_with(b"\xff" * MANY),
    "JPEG, zeros between segments": jpeg_with(segment(0xE0) + bytes(MANY)),
    "JPEG, zeros and no end": b"\xff\xd8\xff\xe0\0\2" + bytes(MANY),
    "JPEG, markers without a length": jpeg_with(b"\xff\xd0" * 2_001),
    "PNG, chunks before the pixels": png_with(chunk(b"teSt") * MANY),
    "PNG, chunks after the pixels": png_with(chunk(b"teSt") * MANY, at=-12),
    "PNG, profiles": png_with(PROFILE * 9),
    "GIF, blocks of a comment": gif_with(b"!\xfe" + b"\1a" * MANY + b"\0"),
    "GIF, extensions": gif_with(b"!\xfe\0" * MANY),
    "GIF, bytes between blocks": gif_with(bytes(MANY)),
    "PPM, header of comments": b"P6\n" + b"#\n" * MANY + b"1 1\n255\nabc",
    "PPM, header of one comment": b"P6\n#" + b"a" * MANY + b"\n1 1\n255\nabc",
    "PPM, comments among numbers": b"P3\n500 500\n255\n" + b"#\n" * 1_001 + b"1 " * 750_000,
    "BMP, ends of lines": compressed_bmp(b"\0\0" * MANY),
    "TIFF, strips": tiff([(273, 4, MANY, 8)]),
    "TIFF, strips, big-endian": tiff([(273, 4, MANY, 8)], order=">"),
    "TIFF, strips, 64-bit offsets": big_tiff(MANY),
    "TIFF, strips in the second page": tiff([], after=14, rest=tiff([(273, 4, MANY, 8)])[8:]),
    "TIFF, tags": tiff([(40_000, 3, 1, 0)] * 1_001),
    "TIFF, pages": tiff_pages(10_001),
}


@pytest.mark.parametrize("data", WASTEFUL.values(), ids=WASTEFUL)
def test_wasteful_files_are_rejected(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"more than [\d,]+ ") as caught:
        decode(data)

    assert caught.value.code == "unsupported_format"


def test_a_camera_jpeg_with_full_segments_passes() -> None:
    metadata = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")
    extended = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) * 300
    profile = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)) * 255
    previews = segment(0xE2, b"MPF\0" + bytes(100))

    check_bounds(jpeg_with(metadata + extended + profile + previews), ["JPEG"])


def test_animations_of_thousands_of_frames_pass() -> None:
    frames = [Image.fromarray(np.full((4, 4), shade, np.uint8)) for shade in (0, 255)] * 1_500
    options = {"save_all": True, "append_images": frames[1:]}

    for kind in ("GIF", "PNG"):
        data = encode(frames[0], kind, **options)
        check_bounds(data, [kind])
        assert decode(data).width == 4


def test_a_png_with_a_byte_in_each_chunk_passes() -> None:
    pixels = zlib.compress(b"".join(b"\0" + bytes(48) for _ in range(16)), 0)
    header = plain("PNG")[:33]

    data = header + b"".join(chunk(b"IDAT", pixels[at : at + 1]) for at in range(len(pixels))) + chunk(b"IEND")

    assert decode(data).width == 16


def test_a_tiff_with_a_strip_for_each_row_passes() -> None:
    tall = Image.new("L", (2, 8_000))

    assert decode(encode(tall, "TIFF", tiffinfo={278: 1})).height == 8_000


def test_a_tiff_whose_page_follows_itself_passes() -> None:
    check_bounds(tiff([], after=8), ["TIFF"])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "PPM"])
def test_a_file_cut_anywhere_passes(kind: str) -> None:
    data = plain(kind)

    for end in range(len(data)):
        check_bounds(data[:end], [kind])
