"""PNG: its chunks, each of which Pillow reads in Python."""

import struct

from common.images.bounds.excess import excess

# libpng writes 8 KiB in each chunk of pixels; an animation adds two chunks for each frame.
_CHUNKS = 20_000
_BYTES_PER_CHUNK = 1_024
# The standard allows one. Pillow decompresses each to as much as a megabyte.
_PROFILES = 8

_SIGNATURE_BYTES = 8
# Length, type and checksum.
_FRAME_BYTES = 12


def check(data: bytes) -> None:
    """Raise ImageError for too many chunks or colour profiles."""
    limit = _CHUNKS + len(data) // _BYTES_PER_CHUNK
    position, chunks, profiles = _SIGNATURE_BYTES, 0, 0
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += length + _FRAME_BYTES
        chunks += 1
        profiles += kind == b"iCCP"
        if chunks > limit:
            raise excess("PNG", limit, "chunks")
        if profiles > _PROFILES:
            raise excess("PNG", _PROFILES, "colour profiles")
