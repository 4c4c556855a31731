"""The signatures of an image: that of the whole, and that of its inside without flat margins."""

import numpy as np
from numpy.typing import NDArray

from common.images.signature import Signature, is_featureless, sign
from common.images.trimming import trimmed


def sign_all(pixels: NDArray[np.uint8]) -> tuple[Signature, ...]:
    """Return the signature of the whole image, and that of the image without flat margins if it differs."""
    whole = sign(pixels)
    inside = trimmed(pixels)
    if inside is None:
        return (whole,)
    second = sign(inside)
    return (whole,) if is_featureless(second) or (second == whole).all() else (whole, second)
