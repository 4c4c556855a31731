"""Thumbnails: their size, and those that lost their image."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.images.thumbnail import MAX_BYTES, thumbnail
from common.store.thumbnails import Owner, Thumbnail
from support.records import deletion, record
from support.stores import MemoryStore
from support.thumbnails import MemoryThumbnails
from workers import orphaned_thumbnails
from workers.orphaned_thumbnails import OrphanedThumbnails


def opened(webp: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(webp))
    assert image.format == "WEBP"
    return image


def test_thumbnail_of_a_photograph_is_small(photo: NDArray[np.uint8]) -> None:
    webp = thumbnail(photo, 256)

    height, width = photo.shape[:2]
    small = opened(webp)
    assert len(webp) <= MAX_BYTES
    assert 100 < max(small.size) <= 256
    assert small.width / small.height == pytest.approx(width / height, rel=0.02)


def test_thumbnail_resembles_its_image(photo: NDArray[np.uint8]) -> None:
    small = opened(thumbnail(photo, 256))

    expected = Image.fromarray(photo).resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(small, float) - np.asarray(expected, float)).mean() < 16


@pytest.mark.parametrize("shape", [(1, 1), (2, 3000), (3000, 2), (256, 256), (1500, 1500)])
def test_thumbnail_of_noise_is_small(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)

    webp = thumbnail(pixels, 256)

    assert len(webp) <= MAX_BYTES
    assert max(opened(webp).size) <= 256


def test_small_image_is_not_enlarged() -> None:
    assert opened(thumbnail(np.zeros((20, 30, 3), np.uint8), 256)).size == (30, 20)


@pytest.fixture
def kept() -> MemoryThumbnails:
    """Thumbnails of three images, the first of which was replaced by the third."""
    thumbnails = MemoryThumbnails()
    names = {1: "a.jpg", 2: "b.jpg", 3: "a.jpg"}
    thumbnails.put([Thumbnail(Owner(seq=seq, filepath=name), b"webp") for seq, name in names.items()])
    return thumbnails


def test_thumbnail_of_a_replaced_image_is_deleted(memory_store: MemoryStore, kept: MemoryThumbnails) -> None:
    memory_store.put([record("a.jpg", 1), record("b.jpg", 2), record("a.jpg", 3)])

    OrphanedThumbnails(memory_store, kept).purge()

    assert sorted(kept.kept) == [2, 3]


def test_thumbnail_of_a_deleted_image_is_deleted(memory_store: MemoryStore, kept: MemoryThumbnails) -> None:
    memory_store.put([record("b.jpg", 2), record("a.jpg", 3), deletion("b.jpg", 4)])

    OrphanedThumbnails(memory_store, kept).purge()

    assert sorted(kept.kept) == [3]


def test_passes_continue_where_the_last_ended(
    memory_store: MemoryStore, kept: MemoryThumbnails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphaned_thumbnails, "PAGE", 1)
    monkeypatch.setattr(orphaned_thumbnails, "PAGES_PER_PASS", 1)
    orphaned = OrphanedThumbnails(memory_store, kept)

    left = []
    for _ in range(3):
        orphaned.purge()
        left.append(sorted(kept.kept))

    assert left == [[2, 3], [3], []]
