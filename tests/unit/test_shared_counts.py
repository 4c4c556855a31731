"""Counts that processes keep together: whose place is whose, and what is left of them."""

import fcntl
import os
from pathlib import Path

import pytest

from api import shared_counts
from api.shared_counts import FOLDER, LOCK, PREFIX, Places, counted_together


@pytest.fixture(autouse=True)
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which those of the counts are."""
    monkeypatch.setattr(shared_counts, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shared_counts, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_who_is_forked_takes_the_place_of_one_that_died() -> None:
    places = Places()
    for who in (1, 2, 3):
        places.give(who, range(who))

    places.give(4, [1, 3])

    assert [places.of(who) for who in (1, 3, 4)] == [0, 2, 1]


def test_those_who_live_side_by_side_never_share_a_place() -> None:
    places = Places()
    for who in range(8):
        places.give(who, range(who))

    assert sorted(places.of(who) for who in range(8)) == list(range(8))


def test_the_folder_lasts_as_long_as_the_server(beside: Path) -> None:
    with counted_together():
        folder = Path(os.environ[FOLDER])
        stood = folder.is_dir()

    assert stood
    assert folder.parent == beside
    assert list(beside.iterdir()) == []
    assert FOLDER not in os.environ


def test_what_a_killed_server_left_goes_and_what_another_holds_stays(beside: Path) -> None:
    left, held = beside / f"{PREFIX}left", beside / f"{PREFIX}held"
    for folder in (left, held):
        folder.mkdir()
        (folder / LOCK).touch()

    with (held / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with counted_together():
            pass

        assert (left.exists(), held.exists()) == (False, True)
