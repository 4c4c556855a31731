"""Fixtures of the image tests: the oracle, photographs of scikit-image, and the files of MATCH_TEST_DATA."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import settings
from image_match.goldberg import ImageSignature
from numpy.typing import NDArray

from support.clocks import Clock

# A busy machine must not fail a test.
settings.register_profile("match", deadline=None)
settings.load_profile("match")

Oracle = Callable[[NDArray[np.uint8]], NDArray[np.int8]]


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """image-match's function for the signature of RGB pixels, with all 648 values."""
    return ImageSignature().generate_signature


@pytest.fixture(scope="session", params=["astronaut", "coffee", "chelsea", "rocket"])
def photo(request: pytest.FixtureRequest) -> NDArray[np.uint8]:
    """A photograph from scikit-image's wheel."""
    return getattr(skimage.data, request.param)()


@pytest.fixture(scope="session")
def other_photo() -> NDArray[np.uint8]:
    return skimage.data.hubble_deep_field()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _data(name: str) -> list[Path]:
    beside = Path(__file__).resolve().parents[2].parent / "shared/data"
    folder = Path(os.environ.get("MATCH_TEST_DATA", beside)) / name
    if not folder.is_dir():
        # Also where CI is set: these files are not in the repository, and no package installs them.
        pytest.skip(f"no {name}/ in MATCH_TEST_DATA, nor in ../shared/data")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def real_photos() -> list[Path]:
    return _data("photos")


@pytest.fixture(scope="session")
def odd_files() -> list[Path]:
    return _data("odd")
