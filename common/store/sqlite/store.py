"""The embedded store in one SQLite file; searches scan segments with a copy of its signatures."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError
from common.store.base import (
    DEFAULT_COLLECTION,
    DEFAULT_SELECTION,
    Candidate,
    Health,
    Page,
    Record,
    Selection,
    Tombstone,
    Written,
    signatures_from_bytes,
)
from common.store.sqlite import tables
from common.store.sqlite.blocks import Ids
from common.store.sqlite.builder import Builder
from common.store.sqlite.connections import Connections, open_file, wrap_errors
from common.store.sqlite.scan import nearest
from common.store.sqlite.signature_index import SignatureIndex

# How long a writer waits for other writers; each locks the file for some milliseconds.
BUSY_TIMEOUT_S = 10.0
# The suffix of the folder of segments, beside the file.
SEGMENTS = "-segments"


class SqliteStore:
    """Store in the file `path`; the first call opens it, and `prepare` closes its connection."""

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._connections = Connections(path, busy_timeout_s=busy_timeout_s)
        builder = Builder(path.with_name(path.name + SEGMENTS), self._connections)
        self._index = SignatureIndex(self._connections, builder)

    def prepare(self) -> None:
        """Create file, tables and indices if absent."""
        with wrap_errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(open_file(self._path, timeout_s=self._busy_timeout_s, mode="rwc")) as db:
                if (version := tables.version(db)) > tables.SCHEMA_VERSION:
                    message = f"{self._path} was written by a newer version of Match (schema version {version})"
                    raise StoreError(message)
                tables.create(db)

    def put(self, items: Sequence[Record | Tombstone]) -> list[Written]:
        """Write all items in one transaction; an item that cannot be stored is rejected without failing the others."""
        with self._connections.transaction() as db:
            change = db.execute("UPDATE state SET change = change + 1 RETURNING change").fetchone()[0]
            return [tables.write(db, item, change) for item in items]

    def candidates(
        self,
        queries: NDArray[np.int8],
        *,
        limit: int,
        selection: Selection = DEFAULT_SELECTION,
        max_distance: float | None = None,
    ) -> list[list[Candidate]]:
        """Return the nearest by exact distances."""
        sql, needed = tables.candidates(selection.where)
        with self._connections.lend() as db:
            blocks = self._index.current().blocks
            among = _ids(db, selection.where) if selection.where else None
            near = nearest(blocks, queries, limit=limit, among=among, max_distance=max_distance)
            ids = json.dumps(sorted({image for images in near for image in images}))
            rows = db.execute(sql, [ids, *needed])
            existing = {row[0]: Candidate(row[1], signatures_from_bytes(row[2])) for row in rows}
        return [[existing[image] for image in images if image in existing] for images in near]

    def records(self, filepaths: Sequence[str], *, collection: str = DEFAULT_COLLECTION) -> dict[str, Record]:  # noqa: ARG002 - only the default one exists yet
        """Return the records of the filepaths that are stored."""
        with self._connections.lend() as db:
            return {row[0]: tables.record(row) for row in db.execute(tables.RECORDS, [json.dumps(filepaths)])}

    def metadata(
        self,
        filepaths: Sequence[str],
        *,
        collection: str = DEFAULT_COLLECTION,  # noqa: ARG002 - only the default one exists yet
    ) -> dict[str, Mapping[str, Any] | None]:
        """Return the metadata of the filepaths that are stored."""
        with self._connections.lend() as db:
            rows = db.execute(tables.METADATA, [json.dumps(filepaths)])
            return {path: tables.read_metadata(metadata) for path, metadata in rows}

    def filepaths(self, *, offset: int, limit: int, selection: Selection = DEFAULT_SELECTION) -> Page:
        """Return filepaths by seq: the offset skips entries of one small index, not records."""
        keep, needed = tables.condition(selection.where)
        sql = f"SELECT path, seq FROM images WHERE {keep} ORDER BY seq, id LIMIT ? OFFSET ?"  # noqa: S608 - no input
        with self._connections.lend() as db:
            return _page(db.execute(sql, [*needed, limit, offset]).fetchall(), after=0)

    def filepaths_after(self, seq: int, *, limit: int, selection: Selection = DEFAULT_SELECTION) -> Page:
        """Return the filepaths with a higher seq."""
        keep, needed = tables.condition(selection.where)
        sql = f"SELECT path, seq FROM images WHERE {keep} AND seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - no input
        with self._connections.lend() as db:
            return _page(db.execute(sql, [*needed, seq, limit]).fetchall(), after=seq)

    def count(self, *, selection: Selection = DEFAULT_SELECTION) -> int:
        """Return the number of stored images."""
        keep, needed = tables.condition(selection.where)
        with self._connections.lend() as db:
            return int(db.execute(f"SELECT count(*) FROM images WHERE {keep}", needed).fetchone()[0])  # noqa: S608 - no input

    def refresh(self) -> None:
        """Do nothing: every search reads all earlier commits."""

    def purge(self, *, before: int, limit: int) -> int:
        """Delete old tombstones."""
        with self._connections.transaction() as db:
            return tables.purge(db, before=before, limit=limit)

    def health(self) -> Health:
        """Return whether the file can be read, and a write transaction begun."""
        try:
            with self._connections.lend() as db:
                db.execute("SELECT 1 FROM state").fetchone()
        except StoreError as error:
            return Health(reads=False, writes=False, detail=str(error))
        try:
            _check_writable(self._path)
        except StoreError as error:
            return Health(reads=True, writes=False, detail=str(error))
        return Health(reads=True, writes=True)

    def close(self) -> None:
        """Close every connection; those in use are closed when returned."""
        self._connections.close()
        self._index.close()


def _ids(db: sqlite3.Connection, where: Mapping[str, str]) -> Ids:
    """Return the ascending ids of the images that pass the filter."""
    keep, needed = tables.condition(where)
    rows = db.execute(f"SELECT id FROM images WHERE {keep}", needed)  # noqa: S608 - no input
    return np.sort(np.fromiter((image for (image,) in rows), np.int64))


def _page(rows: Sequence[tuple[str, int]], *, after: int) -> Page:
    return Page([path for path, _ in rows], rows[-1][1] if rows else after)


def _check_writable(path: Path) -> None:
    with wrap_errors(), closing(open_file(path, timeout_s=0)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            # Busy: another process is writing, so writes succeed.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
