"""The header of a JPEG file: all segments before its first scan."""

import struct
from dataclasses import dataclass

_SEGMENT = struct.Struct(">HH")
_FRAME = struct.Struct(">BHHB")
_START_OF_SCAN, _APP1 = 0xFFDA, 0xFFE1
_PROGRESSIVE = 0xFFC2
# Baseline, extended and progressive coding with Huffman codes.
_FRAMES = {0xFFC0, 0xFFC1, _PROGRESSIVE}
# Huffman tables, quantization tables, restart interval, applications' data and comments.
_OTHERS = {0xFFC4, 0xFFDB, 0xFFDD, *range(0xFFE0, 0xFFF0), 0xFFFE}
_EXIF = b"Exif\0\0"
_BITS = 8
# A large colour profile and a large preview have some tens each.
_SEGMENTS = 1_000


@dataclass(frozen=True, slots=True)
class Header:
    """The `size` of an image, its number of `colours`, how they are coded, and its EXIF.

    `has_one_scan`: the first scan has all colours in full precision.
    """

    size: tuple[int, int]
    colours: int
    has_one_scan: bool
    is_progressive: bool
    exif: bytes


def read_header(data: bytes) -> Header | None:
    """Return the header of a JPEG with eight bits a colour; None for an unusual or damaged one."""
    try:
        return _read(data)
    except (struct.error, IndexError):
        return None


def _read(data: bytes) -> Header | None:
    position, frame, exif, is_progressive = 2, 0, b"", False
    for _ in range(_SEGMENTS):
        kind, length = _SEGMENT.unpack_from(data, position)
        start, end = position + _SEGMENT.size, position + 2 + length
        if kind == _START_OF_SCAN:
            return _header(data, frame, data[start], exif, is_progressive=is_progressive)
        if kind in _FRAMES and not frame:
            frame, is_progressive = start, kind == _PROGRESSIVE
        elif kind == _APP1 and data.startswith(_EXIF, start) and not exif:
            exif = data[start:end]
        elif kind not in _OTHERS or data.startswith(_EXIF, start):
            return None
        position = end
    return None


def _header(data: bytes, frame: int, scanned: int, exif: bytes, *, is_progressive: bool) -> Header | None:
    """Return the header with the frame at this offset, whose first scan has so many colours."""
    bits, height, width, colours = _FRAME.unpack_from(data, frame)
    if not frame or bits != _BITS or not (width and height):
        return None
    return Header(
        size=(width, height),
        colours=colours,
        has_one_scan=not is_progressive and scanned == colours,
        is_progressive=is_progressive,
        exif=exif,
    )
