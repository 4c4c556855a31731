"""Grey TIFFs of every depth, in both byte orders and with white as zero or as the maximum."""

import numpy as np
import pytest

from common.images.decode import decode
from support.image_files import tiff

LEVELS = np.arange(256, dtype=np.uint64).reshape(16, 16)


def grey(depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values of a depth from black to white, and the eight bits that they become."""
    most = (1 << depth) - 1
    values = (LEVELS * np.uint64(most) + np.uint64(127)) // np.uint64(255)
    return values, (values.astype(float) / most * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 12, 16, 32])
def test_black_is_zero_at_every_depth(depth: int, order: str) -> None:
    values, expected = grey(depth)

    pixels = decode(tiff(values, depth=depth, photometric=1, order=order)).pixels

    assert np.abs(pixels[..., 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 12, 16, 32])
def test_white_is_zero_at_every_depth(depth: int, order: str) -> None:
    values, expected = grey(depth)
    inverted = np.uint64((1 << depth) - 1) - values

    pixels = decode(tiff(inverted, depth=depth, photometric=0, order=order)).pixels

    assert np.abs(pixels[..., 0].astype(int) - expected).max() <= 1


def test_measurements_of_32_bits_keep_their_contrast() -> None:
    pixels = decode(tiff(LEVELS * np.uint64(1_000), depth=32, photometric=1)).pixels

    assert np.abs(pixels[..., 0].astype(int) - LEVELS.astype(int)).max() <= 1
