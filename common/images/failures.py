"""The errors for exceptions of decoders."""

from PIL import Image

from common.errors import ImageError


def image_error(error: Exception, name: str) -> ImageError:
    """Return our error for a decoder's exception, without its message, which may contain paths and addresses."""
    if isinstance(error, MemoryError):
        return ImageError(f"decoding the {name} image takes more memory than is available", code="out_of_memory")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(f"the {name} image has more pixels than allowed", code="too_many_pixels")
    if isinstance(error, EOFError) or "truncated" in str(error):
        return ImageError(f"the {name} image is truncated", code="truncated_image")
    return ImageError(f"the {name} image is broken, or of an unsupported variant", code="broken_image")
