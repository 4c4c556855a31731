"""Pixels to signature, and the distance between two signatures."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LENGTH = 272
Signature: TypeAlias = NDArray[np.int8]
"""272 values from -2 to 2: the independent ones of image-match's 648."""
