"""Smaller copies of images that exceed the service's limits."""

from io import BytesIO
from threading import Lock

# Codes of images that a smaller copy may replace.
TOO_LARGE = frozenset({"too_large", "too_many_pixels", "image_too_large_to_decode"})
# The signature is computed from far fewer pixels, and local features from at most 400.
LONGEST_SIDE = 2048
QUALITY = 92
# A gigabyte and a half of memory while it is decoded.
MAX_PIXELS = 400_000_000

# Memory for one image, however many threads send.
_one_at_a_time = Lock()


def is_available() -> bool:
    """Return whether Pillow is installed."""
    try:
        import PIL  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return False
    return True


def shrink(data: bytes) -> bytes | None:
    """Return a copy with at most LONGEST_SIDE pixels a side, or None if Pillow cannot make one.

    The copy depends only on the image: a repeated request has the same bytes.
    """
    if not is_available():
        return None
    from PIL import Image, ImageOps  # noqa: PLC0415 - an extra

    # Pillow's own limit would reject the images that are to be shrunk; MAX_PIXELS replaces it.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with _one_at_a_time, Image.open(BytesIO(data)) as image:
            image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
            if image.width * image.height > MAX_PIXELS:
                return None
            upright = ImageOps.exif_transpose(image)
            has_alpha = upright.has_transparency_data
            small = upright.convert("RGBA" if has_alpha else "RGB")
            small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            copy = BytesIO()
            small.save(copy, "PNG" if has_alpha else "JPEG", **({} if has_alpha else {"quality": QUALITY}))
            return copy.getvalue()
    except Exception:  # noqa: BLE001 - Pillow raises errors of any class for a broken image
        return None
