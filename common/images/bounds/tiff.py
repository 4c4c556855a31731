"""TIFF: its directories, tags and strips, which Pillow reads in Python."""

import struct
from dataclasses import dataclass

from common.images.bounds.excess import excess

# Pages of a document.
_DIRECTORIES = 10_000
# Writers use some tens of tags in a directory; the standard and its extensions define hundreds.
_TAGS = 1_000
# Strips, tiles, and any other numbers of one tag. Pillow also starts a decoder for each strip.
_NUMBERS = 100_000

# Types whose values Pillow keeps as bytes: BYTE, ASCII and UNDEFINED, such as metadata of megabytes.
_BYTE_TYPES = {1, 2, 7}
# The version of files with offsets of 64 bits, in either byte order.
_BIG = {b"+\0", b"\0+"}


@dataclass(frozen=True, slots=True)
class _Layout:
    """The places of the numbers in a file: formats of `struct`, and bytes."""

    offset: str
    tags: str
    tag: str

    @property
    def tag_bytes(self) -> int:
        return struct.calcsize(self.tag)


def check(data: bytes) -> None:
    """Raise ImageError for too many directories, too many tags in one, or too many numbers in a tag."""
    layout, position = _layout(data)
    seen: set[int] = set()
    # Real files with a damaged offset repeat a directory; readers stop there.
    while position and position not in seen:
        seen.add(position)
        if len(seen) > _DIRECTORIES:
            raise excess("TIFF", _DIRECTORIES, "pages")
        position = _check_directory(data, layout, position)


def _layout(data: bytes) -> tuple[_Layout, int]:
    """Return the layout of the file and the offset of its first directory."""
    order = "<" if data.startswith(b"II") else ">"
    if data[2:4] in _BIG:
        layout, position = _Layout(f"{order}Q", f"{order}Q", f"{order}HHQ8x"), 8
    else:
        layout, position = _Layout(f"{order}I", f"{order}H", f"{order}HHI4x"), 4
    return layout, struct.unpack_from(layout.offset, data, position)[0]


def _check_directory(data: bytes, layout: _Layout, position: int) -> int:
    """Check one directory; return the offset of the next, 0 at the end."""
    (tags,) = struct.unpack_from(layout.tags, data, position)
    if tags > _TAGS:
        raise excess("TIFF", _TAGS, "tags in a page")
    position += struct.calcsize(layout.tags)
    end = position + tags * layout.tag_bytes
    for at in range(position, end, layout.tag_bytes):
        tag, kind, count = struct.unpack_from(layout.tag, data, at)
        if count > _NUMBERS and kind not in _BYTE_TYPES:
            raise excess("TIFF", _NUMBERS, f"values in tag {tag}")
    (following,) = struct.unpack_from(layout.offset, data, end)
    return int(following)
