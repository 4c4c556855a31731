"""The visual words that every store indexes for a record."""

import numpy as np
from numpy.typing import NDArray

from common.images.local_features.features import VERSION, LocalFeatures


def indexed_words(features: bytes) -> NDArray[np.uint32]:
    """Return the words in encoded local features. Raises InvalidFeatures, a ValueError.

    Features of another version are stored, for example when an index is copied. Their words are not comparable.
    """
    if features and features[0] != VERSION:
        return np.zeros(0, np.uint32)
    return LocalFeatures.decode(features).words
