"""Files that end before the length that their own headers declare."""

import struct
from collections.abc import Callable

from common.images import jpeg_outline, png

_BIG_TIFF = 43
# Bytes of a value by its type.
_TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
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
    """Return whether the first directory, or a value that it refers to, ends after the file.

    Many programs write both last.
    """
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
    if len(data) < head + entries * entry:
        return True
    # An entry has a tag, a type, a number of values, and these values or their offset.
    layout = f"{order}HH{offset}{offset}"
    values = (struct.unpack_from(layout, data, head + index * entry)[1:] for index in range(entries))
    inline = struct.calcsize(offset)
    sizes = ((at, number * _TIFF_TYPES.get(kind, 0)) for kind, number, at in values)
    return any(size > inline and at + size > len(data) for at, size in sizes)


_CHECKS: dict[str, Callable[[bytes], bool]] = {
    "JPEG": jpeg_outline.is_cut_short,
    "PNG": png.is_cut_short,
    "WEBP": _webp,
    "GIF": _gif,
    "AVIF": _boxes,
    "HEIF": _boxes,
    "TIFF": _tiff,
}
