"""Small files that cost a decoder much memory or time, by name."""

import struct
from collections.abc import Iterator
from itertools import cycle

from PIL import ExifTags, Image

from support.images import encode

MB = 1_000_000


def bombs(*, size: int = 15 * MB) -> dict[str, bytes]:
    """Return one of each kind; the files that are large have about `size` bytes."""
    return {
        "many Exif segments": jpeg_of_segments(0xE1, b"Exif\0\0MM\0*" + bytes(20), size),
        "fewer Exif segments": jpeg_of_segments(0xE1, b"Exif\0\0MM\0*" + bytes(20), size // 2),
        "empty application segments": jpeg_of_segments(0xE5, b"", size),
        "comments in a PNM header": b"P3\n500 500\n255\n" + b"#\n" * (size // 15) + b"1 " * (500 * 500 * 3),
        "a strip for each pixel": tiff_of_strips(size // 8),
        "50 megapixels in 98 bytes": turned_webp(),
    }


def jpeg_of_segments(marker: int, payload: bytes, size: int) -> bytes:
    """Return a small JPEG with `size` bytes of equal segments before its image."""
    jpeg = encode(Image.new("RGB", (32, 32)), "JPEG")
    segment = struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload
    return jpeg[:2] + segment * (size // len(segment)) + jpeg[2:]


def tiff_of_strips(count: int) -> bytes:
    """Return a TIFF one pixel wide, in which all strips are the same byte."""
    header = 8 + 2 + 9 * 12 + 4
    entries = [
        (256, 4, 1, 1),
        (257, 4, 1, count),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, count, header),
        (277, 3, 1, 1),
        (278, 4, 1, 1),
        (279, 4, count, header + 4 * count),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + struct.pack("<I", 8) * count + b"\1\0\0\0" * count


def turned_webp() -> bytes:
    """Return a WebP of one colour with 50 megapixels, to be rotated."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = Image.new("RGBA", (10_000, 5_000), (1, 2, 3, 4))
    return encode(image, "WEBP", lossless=True, quality=0, method=0, exif=exif)


def endless(files: dict[str, bytes]) -> Iterator[bytes]:
    """Yield the files in turn, for ever."""
    yield from cycle(files.values())
