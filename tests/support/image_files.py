"""Image files built from their parts, for variants that Pillow does not write."""

import struct
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: Iterable[bytes], *, size: tuple[int, int], depth: int, colour_type: int, extra: bytes = b"") -> bytes:
    """Return a PNG of packed rows; `extra` chunks precede the image data."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\x00" + row for row in rows))
    return PNG_SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND")


def declared_webp(variant: bytes, side: int) -> bytes:
    """Return the header of a square WebP of a variant, named by its first chunk, with hardly any data."""
    body = {
        b"VP8X": bytes(4) + 2 * (side - 1).to_bytes(3, "little"),
        b"VP8L": b"\x2f" + struct.pack("<I", (side - 1) << 14 | side - 1),
        b"VP8 ": bytes.fromhex("100400 9d012a") + 2 * struct.pack("<H", side),
    }[variant] + bytes(40)
    first = variant + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(first)) + b"WEBP" + first


def with_chunk(data: bytes, extra: bytes) -> bytes:
    """Return a PNG with another chunk after its header."""
    return data[:33] + extra + data[33:]


def chunks_of(data: bytes, kind: bytes) -> list[bytes]:
    """Return the contents of a PNG's chunks of one kind."""
    bodies, start = [], len(PNG_SIGNATURE)
    while start < len(data):
        (length,) = struct.unpack_from(">I", data, start)
        if data[start + 4 : start + 8] == kind:
            bodies.append(data[start + 8 : start + 8 + length])
        start += length + 12
    return bodies


def packed(levels: NDArray[np.uint64], depth: int, order: str = ">") -> list[bytes]:
    """Return rows of grey levels with 1, 2, 4, 8, 12, 16 or 32 bits a pixel."""
    if depth in {8, 16, 32}:
        return [row.tobytes() for row in levels.astype(f"{order}u{depth // 8}")]
    bits = levels[..., np.newaxis] >> np.arange(depth - 1, -1, -1, dtype=np.uint64) & np.uint64(1)
    return [row.tobytes() for row in np.packbits(bits.reshape(len(levels), -1).astype(np.uint8), axis=1)]


def hidden_apng(default: Image.Image, frames: list[bytes], *, declared: int | None = None) -> bytes:
    """Return an animated PNG whose default image is not a frame; `frames` are PNG files of its size and mode.

    `declared` is a wrong number of frames.
    """
    width, height = default.size
    colour_type = {"L": 0, "RGB": 2, "RGBA": 6}[default.mode]
    parts, number = [chunk(b"acTL", struct.pack(">II", declared or len(frames), 0))], 0
    rows = np.asarray(default).reshape(height, -1)
    parts.append(chunk(b"IDAT", zlib.compress(b"".join(b"\x00" + row.tobytes() for row in rows))))
    for frame in frames:
        control = struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 10, 0, 1)
        image_data = b"".join(chunks_of(frame, b"IDAT"))
        parts += [chunk(b"fcTL", control), chunk(b"fdAT", struct.pack(">I", number + 1) + image_data)]
        number += 2
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + b"".join(parts) + chunk(b"IEND")


def tiff(
    levels: NDArray[np.uint64], *, depth: int, photometric: int, order: str = "<", sample_format: int = 1
) -> bytes:
    """Return an uncompressed grey TIFF."""
    data = b"".join(packed(levels, depth, order))
    height, width = levels.shape
    tags = {
        256: width, 257: height, 258: depth, 259: 1, 262: photometric,
        273: 8, 277: 1, 278: height, 279: len(data), 339: sample_format,
    }  # fmt: skip
    # A SHORT is left-justified in its four bytes, so that all values are written as LONG, except those of 339 and 258.
    entries = b"".join(
        struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
        if tag in {258, 339}
        else struct.pack(order + "HHII", tag, 4, 1, value)
        for tag, value in tags.items()
    )
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "2sHI", mark, 42, 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def bmp_v5(pixels: NDArray[np.uint8], alpha: int) -> bytes:
    """Return a BMP with a header of version 5 and one value of alpha."""
    height, width, _ = pixels.shape
    body = np.dstack([pixels[..., ::-1], np.full((height, width), alpha, np.uint8)])[::-1].tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0) + masks
    header += b"BGRs" + bytes(124 - len(header) - 4)
    return struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body
