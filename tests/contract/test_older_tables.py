"""The embedded store migrates the tables of earlier versions."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from common.images.signature import LENGTH
from common.store.base import Record, Store


def test_metadata_of_older_versions_can_be_filtered(build_sqlite: Callable[[], Store], tmp_path: Path) -> None:
    store = build_sqlite()
    store.prepare()
    row = np.ones(LENGTH, np.int8)
    store.put([Record(filepath="cat.jpg", seq=1, signatures=(row,), metadata={"a": ["b"]}, added=0, width=1, height=1)])
    store.close()
    with closing(sqlite3.connect(tmp_path / "home" / "match.db")) as db:
        db.executescript("DROP TABLE labels; PRAGMA user_version = 1;")

    newer = build_sqlite()
    newer.prepare()

    assert newer.filepaths(offset=0, limit=9, where={"a": "b"}).filepaths == ["cat.jpg"]
    newer.close()
