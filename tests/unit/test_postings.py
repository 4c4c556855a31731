"""Postings of words: grouping, merging and lookup agree with sets in memory, also with very small groups."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from common.images.local_features.words import WORDS
from common.store.sqlite import postings
from common.store.sqlite.blocks import EMPTY
from common.store.sqlite.postings import LivePostings, Postings, group, regrouped
from common.store.sqlite.segments import Segment, UnusableSegmentError, open_segment, write_segment
from common.store.sqlite.word_lookup import Scored, score

# Words at the ends of the ranges that are sorted at once.
AWKWARD = [0, 1, 65_535, 65_536, 131_071, WORDS - 65_536, WORDS - 1]
Images = dict[int, list[int]]
NO_IDS = np.zeros(0, np.int64)


def grouped(images: Images) -> Postings:
    ordered = sorted(images.items())
    words = np.array([word for _, own in ordered for word in sorted(own)], np.uint32)
    counts = np.array([len(own) for _, own in ordered], np.intp)
    return group(np.array([image for image, _ in ordered], np.int64), counts, words)


def content(parts: Sequence[LivePostings]) -> Images:
    """Return the words of all images that exist, each once."""
    words: Images = {}
    for part in parts:
        own = part.postings
        for row, image in enumerate(own.keys.tolist()):
            if row not in part.dead.tolist():
                words[image] = []
        for index, word in enumerate(own.words.tolist()):
            for row in own.rows[own.starts[index] : own.starts[index + 1]].tolist():
                if row not in part.dead.tolist():
                    words[int(own.keys[row])].append(word)
    return words


def distinct(images: Images) -> Images:
    return {image: sorted(set(own)) for image, own in images.items()}


def random_images(chance: np.random.Generator, count: int) -> Images:
    ids = chance.choice(2**37, count, replace=False).tolist()
    return {image: sorted(chance.choice(AWKWARD, chance.integers(0, 9)).tolist()) for image in ids}


def test_grouped_words_are_kept_once() -> None:
    images = random_images(np.random.default_rng(1), 100)

    assert content([LivePostings(grouped(images))]) == distinct(images)


@pytest.mark.parametrize("seed", range(20))
def test_regrouped_words_are_those_of_images_that_exist(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "GROUP", 12)
    chance = np.random.default_rng(seed)
    parts = [random_images(chance, int(size)) for size in chance.integers(0, 13, 6)]
    images = {image: own for part in parts for image, own in part.items()}
    gone = np.sort(chance.choice(list(images), len(images) // 4, replace=False))

    groups = list(regrouped(LivePostings(grouped(part)).without(gone) for part in parts))

    alive = {image: own for image, own in images.items() if image not in gone}
    assert content([LivePostings(each) for each in groups]) == distinct(alive)
    assert all(len(each.keys) <= 12 for each in groups)
    assert len(groups) <= 2 * len(alive) / 12 + 1


def test_full_groups_are_not_written_again() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postings, "GROUP", 4)
        full, part = grouped({1: [1], 2: [1], 5: [2]}), grouped({3: [1]})

        groups = list(regrouped([LivePostings(full), LivePostings(part)]))

    assert groups[0] is full


def test_words_are_found_in_every_part() -> None:
    parts = [LivePostings(grouped({1: [7], 2: [7, 8]})), LivePostings(grouped({3: [8], 4: [9]}))]

    scored = score(parts, np.array([9, 7, 7, 8_000], np.uint32), collection=0)

    assert scored.best(9) == [4, 1, 2]


def test_changed_images_are_not_scored() -> None:
    part = LivePostings(grouped({1: [7], 2: [7], 3: [7]})).without(np.array([0, 2, 9]))

    scored = score([part], np.array([7], np.uint32), collection=0)

    assert scored.best(9) == [1, 3]
    assert scored.among(np.array([3, 5])).best(9) == [3]


def test_equal_sums_are_in_the_order_of_keys() -> None:
    scored = score(
        [LivePostings(grouped({image: [7] for image in range(20, 0, -1)}))], np.array([7], np.uint32), collection=0
    )

    assert scored.best(5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("limit", [1, 5, 40, 3_000])
def test_highest_sums_are_not_missed(limit: int) -> None:
    chance = np.random.default_rng(limit)
    # Most images have no common word, and many have equal sums.
    groups = [(np.arange(size) + 10_000 * size, chance.integers(0, 50, size) / 4.0) for size in (900, 1, 3_000)]
    groups = [(keys, np.where(chance.random(len(keys)) < 0.6, 0, sums)) for keys, sums in groups]

    best = Scored(groups).best(limit)

    sums = {int(one): float(each) for keys, of in groups for one, each in zip(keys, of, strict=True) if each}
    assert best == sorted(sums, key=lambda one: (-sums[one], one))[:limit]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = [grouped({1: [1, 5], 2: [5]}), grouped({7: [WORDS - 1]})]
    write_segment(tmp_path, Segment("one", EMPTY, NO_IDS), words)
    return tmp_path


def test_segment_has_the_words_that_were_written(folder: Path) -> None:
    groups = open_segment(folder, "one").words()

    assert content([LivePostings(each) for each in groups]) == {1: [1, 5], 2: [5], 7: [WORDS - 1]}


def test_damaged_words_are_noticed_when_they_are_read(folder: Path) -> None:
    file = folder / "one.segment"
    data = bytearray(file.read_bytes())
    data[4_096] ^= 1
    file.write_bytes(data)

    segment = open_segment(folder, "one")

    with pytest.raises(UnusableSegmentError, match=r"one\.segment.*damaged"):
        segment.words()
