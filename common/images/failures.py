"""The errors for exceptions of decoders."""

from PIL import Image

from common.errors import ImageError
from common.images.completeness import is_cut_short

# Phrases of Pillow, libavif and libheif for missing data.
_TRUNCATED = ("truncated", "not enough image data", "reached eof", "end of file", "outside of file bounds")


def image_error(error: Exception, data: bytes, formats: tuple[str, ...]) -> ImageError:
    """Return our error for a decoder's exception, without its message, which may contain paths and addresses."""
    name = formats[0]
    if isinstance(error, MemoryError):
        return ImageError(f"decoding the {name} image takes too much memory", code="image_too_large_to_decode")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(f"the {name} image has more pixels than allowed", code="too_many_pixels")
    text = str(error).lower()
    if isinstance(error, EOFError) or any(phrase in text for phrase in _TRUNCATED) or is_cut_short(data, name):
        return ImageError(f"the {name} image is truncated", code="truncated_image")
    return ImageError(f"the {name} image is broken, or of an unsupported variant", code="broken_image")
