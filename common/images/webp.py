"""WebP: limits before the file is opened, when its library allocates canvases of the declared size."""

from common.images.cost import check_webp_memory
from common.images.limits import PIXELS_SETTING, Limits, check_pixels

# The first chunk of the three variants: extended, lossless and lossy.
_KIND = slice(12, 16)
_EXTENDED_WIDTH, _EXTENDED_HEIGHT = slice(24, 27), slice(27, 30)
_LOSSLESS_SIZE = slice(21, 25)
_LOSSY_WIDTH, _LOSSY_HEIGHT = slice(26, 28), slice(28, 30)
# Sides of the two older variants, the lossless ones less one.
_SIDE_BITS = 14
_SIDE_MAX = (1 << _SIDE_BITS) - 1


def check_size(data: bytes, limits: Limits) -> None:
    """Raise ImageError for a WebP that declares more pixels or takes more memory than the limits allow."""
    size = _declared_size(data)
    check_pixels(size, limits.pixels, PIXELS_SETTING)
    check_webp_memory(size, data, limits)


def _declared_size(data: bytes) -> tuple[int, int]:
    """Return width and height; (0, 0) for a file that the library rejects."""
    match data[_KIND]:
        case b"VP8X":
            return _number(data[_EXTENDED_WIDTH]) + 1, _number(data[_EXTENDED_HEIGHT]) + 1
        case b"VP8L":
            sides = _number(data[_LOSSLESS_SIZE])
            return (sides & _SIDE_MAX) + 1, (sides >> _SIDE_BITS & _SIDE_MAX) + 1
        case b"VP8 ":
            return _number(data[_LOSSY_WIDTH]) & _SIDE_MAX, _number(data[_LOSSY_HEIGHT]) & _SIDE_MAX
    return 0, 0


def _number(part: bytes) -> int:
    return int.from_bytes(part, "little")
