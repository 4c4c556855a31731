"""PNM: its header, and the comments of its plain variants, which Pillow reads in Python."""

import re

from common.images.bounds.excess import excess

_HEADER_BYTES = 64 * 1024
# Pillow copies 64 KiB for each.
_COMMENTS = 1_000

_COMMENT = re.compile(rb"#[^\r\n]*")
# The magic number, width and height; and the value of white, except in bitmaps.
_TOKENS = 4
_BITMAP_TOKENS = 3
_BITMAPS = (b"P1", b"P4")
_PLAIN = (b"P1", b"P2", b"P3")


def check(data: bytes) -> None:
    """Raise ImageError for a long header, or for too many comments among numbers."""
    tokens = _BITMAP_TOKENS if data.startswith(_BITMAPS) else _TOKENS
    head = _COMMENT.sub(b" ", data[:_HEADER_BYTES]).split(maxsplit=tokens)
    if len(data) > _HEADER_BYTES and len(head) < tokens:
        raise excess("PNM", _HEADER_BYTES, "bytes in its header")
    if data.startswith(_PLAIN) and data.count(b"#") > _COMMENTS:
        raise excess("PNM", _COMMENTS, "comments")
