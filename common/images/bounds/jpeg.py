"""JPEG: the segments before the first scan, which Pillow reads in Python. libjpeg reads the rest."""

import re

from common.images.bounds.excess import excess

# A file of 64 MiB with full segments only has 1,024.
_SEGMENTS = 2_000
# Exif has one segment, and with extensions of some writers a few. Pillow copies all of them again for each new one.
_EXIF_SEGMENTS = 64
# Bytes between segments: the standard allows any number of fill bytes, and Pillow reads them one by one.
_FILL_BYTES = 64 * 1024
# Blocks of Photoshop's segments. It writes up to a hundred.
_BLOCKS = 10_000

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_START_OF_SCAN = 0xDA
_APP1 = 0xE1
# Markers without a length: SOI, EOI, restarts and those that the standard reserves.
_STANDALONE = {0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}


def check(data: bytes) -> None:
    """Raise ImageError for too many segments, fill bytes or blocks before the first scan."""
    position, segments, exif, fill = 2, 0, 0, 0
    while marker := _MARKER.search(data, position):
        code, begin = data[marker.end() - 1], marker.end()
        segments += 1
        fill += marker.start() - position
        _check(segments, _SEGMENTS, "segments before its pixels")
        _check(fill, _FILL_BYTES, "bytes between its segments")
        if code == _START_OF_SCAN:
            break
        position = begin
        if code not in _STANDALONE:
            position += int.from_bytes(data[begin : begin + 2])
            exif += code == _APP1 and data.startswith(b"Exif\0", begin + 2)
            _check(exif, _EXIF_SEGMENTS, "Exif segments")
    _check(len(data) - position if marker is None else 0, _FILL_BYTES, "bytes between its segments")
    _check(data.count(b"8BIM", 0, position), _BLOCKS, "Photoshop blocks")


def _check(count: int, limit: int, parts: str) -> None:
    if count > limit:
        raise excess("JPEG", limit, parts)
