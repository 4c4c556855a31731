"""Words in segments of the embedded store: found by all processes, also after damage and without segments."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from common.store.sqlite import SqliteStore, features, postings
from support.records import deletion, features_of, record
from support.segments import folder, make_small, segment_files, wait_for_build

COUNT = 60


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    # Some records fill several groups of postings too.
    make_small(monkeypatch, {(features, "BATCH"): 3, (postings, "GROUP"): 8})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "match.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """A store with COUNT images; each has its sequence number as a word, and 0."""
    store = SqliteStore(path)
    store.prepare()
    store.put([record(f"{seq}.jpg", seq, features=features_of(0, seq)) for seq in range(1, COUNT + 1)])
    yield store
    store.close()


def by_words(store: SqliteStore, *words: int) -> list[str]:
    candidates = store.candidates_by_words(np.array(words, np.uint32), limit=2 * COUNT)
    return [candidate.filepath for candidate in candidates]


def finds_all(path: Path) -> bool:
    """Return whether another process finds every image by its own word, and all by the common one."""
    with closing(SqliteStore(path)) as other:
        own = [by_words(other, seq) for seq in range(1, COUNT + 1)]
        return own == [[f"{seq}.jpg"] for seq in range(1, COUNT + 1)] and len(by_words(other, 0)) == COUNT


def test_first_lookup_writes_words_of_many_images(path: Path, store: SqliteStore) -> None:
    assert by_words(store, 1, COUNT) == ["1.jpg", f"{COUNT}.jpg"]

    assert len(segment_files(path)) > 1
    words = store._words._words
    assert words is not None
    assert (len(words.tail), sum(len(part) for part in words.segments)) == (0, COUNT)


def test_words_of_merged_segments_are_those_that_exist(path: Path, store: SqliteStore) -> None:
    by_words(store, 0)
    states = {f"{seq}.jpg": seq for seq in range(1, COUNT + 1)}
    for seq in range(COUNT + 1, 4 * COUNT):
        filepath = f"{seq % COUNT + 1}.jpg"
        store.put([deletion(filepath, seq) if seq % 7 == 0 else record(filepath, seq, features=features_of(0, seq))])
        states[filepath] = 0 if seq % 7 == 0 else seq
        by_words(store, seq)
        wait_for_build(store)

    exist = {filepath: seq for filepath, seq in states.items() if seq}
    with closing(SqliteStore(path)) as other:
        for each in (store, other):
            assert sorted(by_words(each, 0)) == sorted(exist)
            assert [by_words(each, seq) for seq in exist.values()] == [[filepath] for filepath in exist]
            assert by_words(each, *(seq for seq in range(1, COUNT) if seq not in exist.values())) == []


@pytest.mark.parametrize("harm", ["absent", "damaged words"])
def test_unusable_words_are_written_again(path: Path, store: SqliteStore, harm: str) -> None:
    by_words(store, 0)
    first = segment_files(path)[0]
    data = bytearray(first.read_bytes())
    first.unlink()
    if harm == "damaged words":
        data[4_096] ^= 255
        first.write_bytes(data)

    assert finds_all(path)

    assert first not in segment_files(path)
    assert finds_all(path)
    assert len(by_words(store, 0)) == COUNT


@pytest.mark.parametrize("when", ["before the first search", "after segments were written"])
def test_folder_that_cannot_be_written_costs_only_memory(
    path: Path, store: SqliteStore, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    if when == "after segments were written":
        by_words(store, 0)
        shutil.rmtree(folder(path))
    folder(path).write_text("a file in place of the folder")

    with caplog.at_level(logging.WARNING):
        assert finds_all(path)

    assert "read into memory" in caplog.text
    assert len(by_words(store, 0)) == COUNT
