"""Flat content: recognised by the signature, and matched by a stricter rule."""

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from common.images.flatness import FLAT_CUTOFF, REGULAR_CUTOFF, is_flat, is_smooth, sure_below
from common.images.signature import LENGTH, sign
from support.scenes import ball, page

Pixels = NDArray[np.uint8]


def test_pages_are_flat_and_photographs_are_not() -> None:
    assert is_flat(sign(np.asarray(page(1))))
    assert not is_flat(sign(skimage.data.chelsea()))


def test_flat_signatures_are_sure_at_smaller_distances(photo: Pixels) -> None:
    rows = np.stack([sign(np.asarray(page(2))), sign(skimage.data.chelsea())])

    assert sure_below(sign(photo)[np.newaxis], rows).tolist() == [FLAT_CUTOFF, np.inf]
    assert sure_below(sign(np.asarray(page(1)))[np.newaxis], rows).tolist() == [FLAT_CUTOFF, FLAT_CUTOFF]


def test_only_pairs_of_regular_signatures_are_stricter() -> None:
    ball_one, ball_two = (sign(np.asarray(ball(seed))) for seed in (1, 2))
    cat = sign(skimage.data.chelsea())

    assert sure_below(ball_one[np.newaxis], np.stack([ball_two, cat])).tolist() == [REGULAR_CUTOFF, np.inf]
    assert sure_below(cat[np.newaxis], np.stack([ball_two])).tolist() == [np.inf]


@pytest.mark.parametrize("angle", [0, 30, 90, 200])
def test_gradients_are_smooth(angle: int) -> None:
    ramp = Image.linear_gradient("L").rotate(angle, Image.Resampling.BICUBIC).crop((60, 60, 190, 190))

    assert is_smooth(sign(np.asarray(ramp.resize((400, 300)).convert("RGB"))))


def test_photographs_and_pages_are_not_smooth(photo: Pixels) -> None:
    assert not is_smooth(sign(photo))
    assert not is_smooth(sign(np.asarray(page(1))))


def test_featureless_signature_is_flat_and_not_smooth() -> None:
    featureless = np.zeros(LENGTH, dtype=np.int8)

    assert (is_flat(featureless), is_smooth(featureless)) == (True, False)
