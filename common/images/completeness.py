"""Files that end before the length that their own headers declare."""

import struct
from collections.abc import Callable

from common.images import png

_BIG_TIFF = 43
_BOX_HEAD, _LARGE_BOX_HEAD = 8, 16


def is_cut_short(data: bytes, name: str) -> bool:
    """Return whether a file of the format `name` (of Pillow) lacks bytes at its end. In doubt it does not."""
    check = _CHECKS.get(name)
    try:
        return check is not None and check(data)
    except (struct.error, ValueError, IndexError):
        return False


def _webp(data: bytes) -> bool:
    return len(data) < int.from_bytes(data[4:8], "little") + 8


def _gif(data: bytes) -> bool:
    """Every GIF ends with a semicolon; some programs append zeros."""
    return not data.rstrip(b"\x00").endswith(b";")


def _boxes(data: bytes) -> bool:
    """Return whether a box of an ISO base media file ends after the file."""
    start = 0
    while start + _BOX_HEAD <= len(data):
        size = int.from_bytes(data[start : start + 4])
        if size == 1:
            size = int.from_bytes(data[start + _BOX_HEAD : start + _LARGE_BOX_HEAD])
        if size == 0:
            # The last box, up to the end of the file.
            return False
        if size < _BOX_HEAD:
            return False
        start += size
    return start != len(data)


def _tiff(data: bytes) -> bool:
    """Return whether the first directory ends after the file. Many programs write it last."""
    order = "<" if data.startswith(b"II") else ">"
    version, *_ = struct.unpack_from(order + "H", data, 2)
    offset, at, count, entry = ("Q", 8, "Q", 20) if version == _BIG_TIFF else ("I", 4, "H", 12)
    if len(data) < at + struct.calcsize(offset):
        return True
    (start,) = struct.unpack_from(order + offset, data, at)
    head = start + struct.calcsize(count)
    if len(data) < head:
        return True
    (entries,) = struct.unpack_from(order + count, data, start)
    return bool(len(data) < head + entries * entry)


_CHECKS: dict[str, Callable[[bytes], bool]] = {
    "PNG": png.is_cut_short,
    "WEBP": _webp,
    "GIF": _gif,
    "AVIF": _boxes,
    "HEIF": _boxes,
    "TIFF": _tiff,
}
