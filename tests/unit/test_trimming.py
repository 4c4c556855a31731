"""The second signature: flat margins do not change it."""

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from common.images.signature import distance, sign
from common.images.trimming import second_signature, trim

Pixels = NDArray[np.uint8]


def letterboxed(photo: Pixels, level: int = 0) -> Pixels:
    return np.pad(photo, ((90, 90), (40, 40), (0, 0)), constant_values=level)


def test_margin_is_trimmed_to_the_photograph(photo: Pixels) -> None:
    inside = photo[40:-40, 40:-40]

    trimmed = trim(np.pad(inside, ((90, 30), (0, 70), (0, 0)), constant_values=128))

    assert trimmed is not None
    assert abs(trimmed.shape[0] - inside.shape[0]) + abs(trimmed.shape[1] - inside.shape[1]) < 12


def test_noise_in_a_margin_leaves_the_second_signature(photo: Pixels) -> None:
    clean = letterboxed(photo)
    noisy = np.maximum(clean, np.random.default_rng(1).integers(0, 3, clean.shape, dtype=np.uint8))
    noisy[3, 5] = 255

    first, second = (second_signature(each, sign(each)) for each in (clean, noisy))

    assert first is not None
    assert second is not None
    assert distance(first, second) < 0.1


def test_letterboxed_photograph_equals_the_photograph(photo: Pixels) -> None:
    frame = letterboxed(photo, 255)

    second = second_signature(frame, sign(frame))

    assert second is not None
    assert distance(second, sign(photo)) < 0.25


def test_photograph_without_margins_has_no_second_signature() -> None:
    photo = skimage.data.astronaut()

    assert second_signature(photo, sign(photo)) is None


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 5), (64, 64)])
def test_flat_image_has_no_second_signature(size: tuple[int, int]) -> None:
    flat = np.full((*size, 3), 77, dtype=np.uint8)

    assert second_signature(flat, sign(flat)) is None


def test_small_drawing_in_a_large_margin_is_not_trimmed_away() -> None:
    page = np.full((400, 400, 3), 255, dtype=np.uint8)
    page[200:210, 200:210] = 0

    assert second_signature(page, sign(page)) is None


def test_line_with_more_than_a_hundredth_of_ink_is_kept() -> None:
    page = np.full((300, 200, 3), 255, dtype=np.uint8)
    page[100:200, 50:150] = np.arange(100, dtype=np.uint8)[:, np.newaxis, np.newaxis]
    page[60, :3] = 0

    trimmed = trim(page)

    assert trimmed is not None
    assert trimmed.shape[0] == 140
