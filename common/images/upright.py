"""The orientation that EXIF declares for the stored pixels."""

from PIL import ExifTags, Image

_TRANSPOSE = Image.Transpose
# The operation that turns the stored pixels upright, by EXIF orientation.
_OPERATIONS: dict[object, Image.Transpose] = {
    2: _TRANSPOSE.FLIP_LEFT_RIGHT,
    3: _TRANSPOSE.ROTATE_180,
    4: _TRANSPOSE.FLIP_TOP_BOTTOM,
    5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270,
    7: _TRANSPOSE.TRANSVERSE,
    8: _TRANSPOSE.ROTATE_90,
}
_SIDEWAYS = {_TRANSPOSE.TRANSPOSE, _TRANSPOSE.ROTATE_270, _TRANSPOSE.TRANSVERSE, _TRANSPOSE.ROTATE_90}


def forget_xmp(image: Image.Image) -> None:
    """Remove XMP from an opened image: Pillow would turn a TIFF by it, while it decodes the pixels.

    Editors turn the pixels and leave XMP's orientation unchanged. Browsers ignore it.
    """
    image.info.pop("xmp", None)


def upright_turn(image: Image.Image) -> Image.Transpose | None:
    """Return the operation that turns the stored pixels upright; None for pixels that are upright."""
    return _OPERATIONS.get(_orientation(image))


def turned_size(size: tuple[int, int], turn: Image.Transpose | None) -> tuple[int, int]:
    """Return the width and height after the turn."""
    return (size[1], size[0]) if turn in _SIDEWAYS else size


def _orientation(image: Image.Image) -> object:
    """Return EXIF's orientation. Image.getexif would add that of XMP and of ImageMagick's text chunks."""
    stored = image.info.get("exif")
    if not stored:
        return None
    try:
        exif = Image.Exif()
        exif.load(stored)
        return exif.get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises nearly any exception, and the pixels do not depend on it
        return None
