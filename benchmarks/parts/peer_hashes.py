"""The fingerprints of other free systems: pHash, PDQ and ISCC, as bits that are compared by their Hamming distance."""

from collections.abc import Callable

import imagehash
import iscc_core
import numpy as np
import pdqhash
from numpy.typing import NDArray
from PIL import Image

Bits = NDArray[np.bool_]


def phash(image: Image.Image) -> Bits:
    """Return 64 bits of the low frequencies of the cosine transform."""
    return np.asarray(imagehash.phash(image).hash, dtype=bool).ravel()


def pdq(image: Image.Image) -> Bits:
    """Return 256 bits."""
    bits, _quality = pdqhash.compute(np.asarray(image))
    return np.asarray(bits, dtype=bool)


def iscc(image: Image.Image) -> Bits:
    """Return the 64 bits of an Image-Code, from 32 by 32 greys."""
    grey = image.convert("L").resize((32, 32), Image.Resampling.BICUBIC)
    digest = iscc_core.soft_hash_image_v0(list(grey.tobytes()), bits=64)
    return np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).astype(bool)


PEERS: dict[str, Callable[[Image.Image], Bits]] = {"pHash": phash, "PDQ": pdq, "ISCC": iscc}
