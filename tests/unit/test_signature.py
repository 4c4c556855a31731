"""The signature and its distance, which equal image-match's."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from image_match.goldberg import ImageSignature
from numpy.typing import NDArray
from PIL import Image

from common.images.signature import (
    LENGTH,
    Signature,
    distance,
    distances,
    expand,
    is_featureless,
    pair_distances,
    score,
    sign,
)

Oracle = Callable[[NDArray[np.uint8]], NDArray[np.int8]]

FEATURELESS = np.zeros(LENGTH, dtype=np.int8)
signatures = arrays(np.int8, LENGTH, elements=st.integers(-2, 2))
shapes = st.tuples(st.integers(1, 130), st.integers(1, 130))


@st.composite
def noise(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Return coarse noise, which survives averaging, sometimes with flat borders; no two greys are equal."""
    height, width = draw(shapes)
    grain, border = draw(st.integers(1, 12)), draw(st.integers(0, 20))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    coarse = random.integers(0, 256, (height // grain + 1, width // grain + 1, 3), dtype=np.uint8)
    pixels = coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width]
    return np.pad(pixels, ((border, border), (border, border), (0, 0)))


@st.composite
def ties(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Return a mirrored mosaic of few greys, some of them two apart: sizes are equal except for their last bits."""
    tiles, grain = draw(st.integers(2, 12)), draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    palette = np.array([0, 2, 4, 90, 92, 250, 255], dtype=np.uint8)
    greys = palette[random.integers(0, len(palette), (tiles, tiles))].repeat(grain, axis=0).repeat(grain, axis=1)
    return np.stack([np.concatenate([greys, greys[:, ::-1]], axis=1)] * 3, axis=2)


def test_signature_of_a_photograph_equals_image_matchs(photo: NDArray[np.uint8], oracle: Oracle) -> None:
    signature = expand(sign(photo))

    assert np.array_equal(signature, oracle(photo))


@pytest.mark.parametrize("crop", [(60, 400), (1, 300), (300, 1), (19, 23), (2, 2), (51, 49)])
def test_signature_of_a_crop_equals_image_matchs(
    photo: NDArray[np.uint8], oracle: Oracle, crop: tuple[int, int]
) -> None:
    part = photo[100 : 100 + crop[0], 100 : 100 + crop[1]]

    assert np.array_equal(expand(sign(part)), oracle(part))


def test_signature_of_a_large_image_equals_image_matchs(photo: NDArray[np.uint8], oracle: Oracle) -> None:
    big = np.asarray(Image.fromarray(photo).resize((2300, 2000), Image.Resampling.BICUBIC))

    assert np.array_equal(expand(sign(big)), oracle(big))


def test_signatures_of_real_photographs_equal_image_matchs(real_photos: list[Path], oracle: Oracle) -> None:
    def differs(path: Path) -> bool:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        return not np.array_equal(expand(sign(pixels)), oracle(pixels))

    assert [path.name for path in real_photos if differs(path)] == []


@given(pixels=noise())
def test_signature_of_noise_equals_image_matchs(oracle: Oracle, pixels: NDArray[np.uint8]) -> None:
    assert np.array_equal(expand(sign(pixels)), oracle(pixels))


@given(pixels=ties())
def test_ties_are_decided_like_image_matchs(oracle: Oracle, pixels: NDArray[np.uint8]) -> None:
    assert np.array_equal(expand(sign(pixels)), oracle(pixels))


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("bar", [21, 22, 60])
def test_flat_lines_move_the_boxes_like_image_matchs(
    photo: NDArray[np.uint8], oracle: Oracle, bar: int, turns: int
) -> None:
    letterboxed = np.pad(photo, ((bar, bar), (0, 0), (0, 0)))
    letterboxed[bar - 1, 30] = 12
    pixels = np.ascontiguousarray(np.rot90(letterboxed, turns))

    assert np.array_equal(expand(sign(pixels)), oracle(pixels))


def test_lines_of_colours_with_equal_greys_are_flat(photo: NDArray[np.uint8], oracle: Oracle) -> None:
    width = photo.shape[1] // 2 * 2
    line = np.tile(np.array([[0, 0, 229], [7, 21, 0]], dtype=np.uint8), (width // 2, 1))
    pixels = np.concatenate([np.stack([line] * 60), photo[:, :width]])

    assert np.array_equal(expand(sign(pixels)), oracle(pixels))


@given(pixels=shapes.flatmap(lambda shape: arrays(np.uint8, (*shape, 3))))
def test_any_pixels_have_a_signature(pixels: NDArray[np.uint8]) -> None:
    signature = sign(pixels)

    assert (signature.shape, signature.dtype) == ((LENGTH,), np.int8)
    assert np.abs(signature).max() <= 2


def test_memory_layout_does_not_change_the_signature(photo: NDArray[np.uint8]) -> None:
    columns_first = np.asfortranarray(photo)

    assert np.array_equal(sign(columns_first), sign(photo))


def test_black_beside_white_keeps_image_matchs_second_ranking(oracle: Oracle) -> None:
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    pixels[60:] = 60
    pixels[:, 54:] = 255
    pixels[2] = 90

    signature = expand(sign(pixels))

    assert np.array_equal(signature, oracle(pixels))
    assert set(np.unique(signature)) == {-2, 0, 2}


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1, 3), (300, 400, 3)])
def test_a_plain_image_is_featureless(shape: tuple[int, ...]) -> None:
    signature = sign(np.full(shape, 77, dtype=np.uint8))

    assert is_featureless(signature)


def test_a_photograph_is_not_featureless(photo: NDArray[np.uint8]) -> None:
    assert not is_featureless(sign(photo))


@given(signature=signatures)
def test_the_long_form_contains_pairs_of_opposite_values(signature: Signature) -> None:
    long = expand(signature)

    assert long.shape == (648,)
    assert np.count_nonzero(long) == 2 * np.count_nonzero(signature)
    assert long.astype(int).sum() == 0


@given(one=signatures, other=signatures)
def test_the_distance_equals_image_matchs_exactly(one: Signature, other: Signature) -> None:
    if is_featureless(one) and is_featureless(other):
        return

    assert distance(one, other) == ImageSignature.normalized_distance(expand(one), expand(other))


@given(one=signatures, other=signatures)
def test_distance_is_symmetric_and_at_most_1(one: Signature, other: Signature) -> None:
    assert 0.0 <= distance(one, other) <= 1.0
    assert distance(one, other) == distance(other, one)


def test_equal_signatures_are_0_apart_and_opposite_ones_1(photo: NDArray[np.uint8]) -> None:
    signature = sign(photo)

    assert distance(signature, signature) == 0.0
    assert distance(signature, -signature) == 1.0


def test_a_featureless_image_is_unlike_every_image(photo: NDArray[np.uint8]) -> None:
    rows = np.stack([FEATURELESS, sign(photo)])

    assert distances(FEATURELESS, rows).tolist() == [1.0, 1.0]


@given(query=signatures, rows=arrays(np.int8, (7, LENGTH), elements=st.integers(-2, 2)))
def test_batch_distances_equal_single_distances(query: Signature, rows: NDArray[np.int8]) -> None:
    assert distances(query, rows).tolist() == [distance(query, row) for row in rows]


@given(rows=arrays(np.int8, (7, LENGTH), elements=st.integers(-2, 2)))
def test_distances_of_pairs_equal_single_distances(rows: NDArray[np.int8]) -> None:
    others = rows[::-1]

    assert pair_distances(rows, others).tolist() == [distance(*pair) for pair in zip(rows, others, strict=True)]


def test_a_query_against_no_rows_has_no_distances(photo: NDArray[np.uint8]) -> None:
    assert distances(sign(photo), np.empty((0, LENGTH), dtype=np.int8)).tolist() == []


def test_the_score_is_similarity_in_percent() -> None:
    assert (score(0.0), score(1.0)) == (100.0, 0.0)
    assert math.isclose(score(0.45), 55.0)
