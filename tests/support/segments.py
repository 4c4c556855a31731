"""Segments of the embedded store: their files, and limits so small that some records fill one."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from common.store.sqlite import SqliteStore, builder, changes, signature_index

_SMALL = {
    (signature_index, "TAIL"): 6,
    (signature_index, "REBUILT"): 25,
    (builder, "REBUILT"): 25,
    (builder, "PIECE"): 10,
    (changes, "BATCH"): 4,
}


def make_small(monkeypatch: pytest.MonkeyPatch, limits: Mapping[tuple[ModuleType, str], int]) -> None:
    """Lower the limits of segments, and others by module and name."""
    for (module, name), value in {**_SMALL, **limits}.items():
        monkeypatch.setattr(module, name, value)


def folder(path: Path) -> Path:
    """Return the folder of the segments of a database."""
    return path.with_name("match.db-segments")


def segment_files(path: Path) -> list[Path]:
    """Return the files of the segments, sorted by name."""
    return sorted(folder(path).glob("*.segment"))


def wait_for_build(store: SqliteStore) -> None:
    """Let a thread that writes a segment end: far behind the writes, a search would write smaller ones itself."""
    thread = store._index._thread
    if thread is not None:
        thread.join()
