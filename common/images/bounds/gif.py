"""GIF: its frames, extensions and their blocks, which Pillow reads in Python."""

from common.images.bounds.excess import excess

# Blocks hold up to 255 bytes, and writers fill them. An animation of small changes has about four for each frame.
_BLOCKS = 200_000
_BYTES_PER_BLOCK = 128

_HEADER_BYTES = 13
_DESCRIPTOR_BYTES = 10
_EXTENSION = 0x21
_IMAGE = 0x2C
_TRAILER = 0x3B


def check(data: bytes) -> None:
    """Raise ImageError for too many blocks; a byte between blocks counts as one."""
    limit = _BLOCKS + len(data) // _BYTES_PER_BLOCK
    position = _HEADER_BYTES + _palette_bytes(data[10])
    blocks = 0
    while blocks <= limit and (kind := data[position]) != _TRAILER:
        blocks += 1
        position += 1
        if kind == _EXTENSION:
            position += 1
        elif kind == _IMAGE:
            # The descriptor, the frame's palette, and the size of the first code.
            position += _DESCRIPTOR_BYTES + _palette_bytes(data[position + 8])
        else:
            continue
        while blocks <= limit and (size := data[position]):
            position += 1 + size
            blocks += 1
        position += 1
    if blocks > limit:
        raise excess("GIF", limit, "blocks")


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
