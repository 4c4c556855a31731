"""The sixteen orientations of a signature."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from common.images.orientations import ORIENTATIONS, turn
from common.images.signature import LENGTH, Signature, distance, sign

signatures = arrays(np.int8, LENGTH, elements=st.integers(-2, 2))
every_orientation = pytest.mark.parametrize("name", ORIENTATIONS)


def turned(pixels: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """Return the pixels in the orientation of this name."""
    if "mirrored" in name:
        pixels = pixels[:, ::-1]
    quarters = next((degrees // 90 for degrees in (90, 180, 270) if name.endswith(f"rotated_{degrees}")), 0)
    clockwise = np.rot90(pixels, -quarters)
    return 255 - clockwise if "inverted" in name else clockwise


def one_turn(signature: Signature, name: str) -> Signature:
    return turn(signature)[ORIENTATIONS.index(name)]


def test_the_first_of_sixteen_orientations_is_the_original(photo: NDArray[np.uint8]) -> None:
    signature = sign(photo)

    assert len(set(ORIENTATIONS)) == 16
    assert ORIENTATIONS[0] == "original"
    assert np.array_equal(turn(signature)[0], signature)


@every_orientation
def test_turned_signature_is_near_signature_of_turned_image(photo: NDArray[np.uint8], name: str) -> None:
    really = sign(turned(photo, name))

    assert distance(one_turn(sign(photo), name), really) < 0.3


@every_orientation
def test_no_other_orientation_is_nearer(photo: NDArray[np.uint8], name: str) -> None:
    really = sign(turned(photo, name))

    nearest = int(np.argmin([distance(row, really) for row in turn(sign(photo))]))

    assert ORIENTATIONS[nearest] == name


@given(signature=signatures)
def test_the_second_eight_are_the_first_eight_inverted(signature: Signature) -> None:
    rows = turn(signature)

    assert (rows.shape, rows.dtype) == ((16, LENGTH), np.int8)
    assert np.array_equal(rows[8:], -rows[:8])
    assert all(name.startswith("inverted") for name in ORIENTATIONS[8:])


@given(signature=signatures)
def test_quarter_turns_add_up(signature: Signature) -> None:
    quarter = one_turn(signature, "rotated_90")

    assert np.array_equal(one_turn(quarter, "rotated_90"), one_turn(signature, "rotated_180"))
    assert np.array_equal(one_turn(quarter, "rotated_180"), one_turn(signature, "rotated_270"))
    assert np.array_equal(one_turn(quarter, "rotated_270"), signature)


@given(signature=signatures)
def test_mirroring_or_inverting_twice_changes_nothing(signature: Signature) -> None:
    for name in ("mirrored", "inverted", "mirrored_rotated_90", "inverted_mirrored_rotated_270"):
        assert np.array_equal(one_turn(one_turn(signature, name), name), signature)


@given(signature=signatures)
def test_mirroring_precedes_rotation(signature: Signature) -> None:
    mirrored = one_turn(signature, "mirrored")

    assert np.array_equal(one_turn(mirrored, "rotated_90"), one_turn(signature, "mirrored_rotated_90"))
    assert np.array_equal(
        one_turn(mirrored, "inverted_rotated_90"), one_turn(signature, "inverted_mirrored_rotated_90")
    )


@given(signature=signatures)
def test_a_turned_signature_has_the_same_orientations(signature: Signature) -> None:
    expected = {row.tobytes() for row in turn(signature)}

    for row in turn(signature):
        assert {again.tobytes() for again in turn(row)} == expected
