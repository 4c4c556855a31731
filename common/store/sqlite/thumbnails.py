"""Thumbnails beside the embedded store, in a SQLite file of their own: writing one never waits for a search's table."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from common.store.sqlite.connections import open_file, wrap_errors
from common.store.thumbnails import Owner, Thumbnail

BUSY_TIMEOUT_S = 20.0
_CREATE = """
CREATE TABLE IF NOT EXISTS thumbnails (
    seq INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    path TEXT NOT NULL,
    webp BLOB NOT NULL
) STRICT
"""


class SqliteThumbnails:
    """Thumbnails in the file `path`, which is created when it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, thumbnails: Sequence[Thumbnail]) -> None:
        """Keep the thumbnails; see Thumbnails."""
        rows = [(each.owner.seq, each.owner.collection, each.owner.filepath, each.webp) for each in thumbnails]
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT OR REPLACE INTO thumbnails (seq, collection, path, webp) VALUES (?, ?, ?, ?)", rows)
            db.execute("COMMIT")

    def get(self, seq: int) -> bytes | None:
        """Return the WebP of a record; see Thumbnails."""
        with self._open() as db:
            row = db.execute("SELECT webp FROM thumbnails WHERE seq = ?", [seq]).fetchone()
        return None if row is None else bytes(row[0])

    def owners_after(self, seq: int, *, limit: int) -> list[Owner]:
        """Return the owners with a higher `seq`; see Thumbnails."""
        statement = "SELECT seq, collection, path FROM thumbnails WHERE seq > ? ORDER BY seq LIMIT ?"
        with self._open() as db:
            rows = db.execute(statement, [seq, limit]).fetchall()
        return [Owner(seq=number, collection=collection, filepath=path) for number, collection, path in rows]

    def delete(self, seqs: Sequence[int]) -> None:
        """Delete the thumbnails of these records; see Thumbnails."""
        with self._open() as db:
            db.execute("DELETE FROM thumbnails WHERE seq IN (SELECT value FROM json_each(?))", [json.dumps([*seqs])])

    def close(self) -> None:
        """Do nothing: each call closes its connection."""

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with wrap_errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(open_file(self._path, timeout_s=BUSY_TIMEOUT_S, mode="rwc")) as db:
                db.execute("PRAGMA journal_mode = WAL")
                # A thumbnail that a power failure loses is not an image that is lost.
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute(_CREATE)
                yield db
