"""BMP: its compressed data, which Pillow decompresses in Python."""

import struct

from common.images.bounds.excess import excess

# Run-length codes: the two that Pillow decompresses.
_COMPRESSED = {1, 2}
# Any encoding of a row takes at most two bytes for each pixel, and two more at its end.
_BYTES_PER_PIXEL = 4
_SPARE_BYTES = 64 * 1024
# Headers up to this size have no compression.
_OLD_HEADER_BYTES = 12


def check(data: bytes) -> None:
    """Raise ImageError for far more run-length codes than the image has pixels."""
    (begin, header_bytes) = struct.unpack_from("<II", data, 10)
    if header_bytes <= _OLD_HEADER_BYTES:
        return
    width, height, compression = struct.unpack_from("<ii4xI", data, 18)
    limit = _BYTES_PER_PIXEL * abs(width * height) + _SPARE_BYTES
    if compression in _COMPRESSED and len(data) - begin > limit:
        raise excess("BMP", limit, f"compressed bytes for {width} x {abs(height)} pixels")
