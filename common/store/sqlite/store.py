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
    Collection,
    Disk,
    Health,
    Item,
    Page,
    Record,
    Selection,
    WordCandidate,
    Written,
    signatures_from_bytes,
)
from common.store.sqlite import catalogue, selections, tables
from common.store.sqlite.blocks import Keys, image_of, key
from common.store.sqlite.builder import Builder
from common.store.sqlite.connections import Connections, check_usable, open_file, wrap_errors
from common.store.sqlite.files import disk_of
from common.store.sqlite.scan import nearest
from common.store.sqlite.signature_index import SignatureIndex
from common.store.sqlite.word_index import WordIndex
from common.store.sqlite.word_lookup import score

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
        self._words = WordIndex(self._connections, builder, self._index)

    def prepare(self) -> None:
        """Create file, tables and indices if absent."""
        with wrap_errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(open_file(self._path, timeout_s=self._busy_timeout_s, mode="rwc")) as db:
                check_usable(db, self._path)
                tables.create(db)

    def put(self, items: Sequence[Item]) -> list[Written]:
        """Write all items in one transaction; an item that cannot be stored is rejected without failing the others."""
        with self._connections.transaction() as db:
            change = db.execute("UPDATE state SET change = change + 1 RETURNING change").fetchone()[0]
            return tables.write(db, items, change)

    def candidates(
        self,
        queries: NDArray[np.int8],
        *,
        limit: int,
        selection: Selection = DEFAULT_SELECTION,
        max_distance: float | None = None,
    ) -> list[list[Candidate]]:
        """Return the nearest by exact distances."""
        with self._connections.lend() as db:
            number = catalogue.number(db, selection.collection)
            if number is None:
                return [[] for _ in queries]
            parts = self._index.current().of_collection(number)
            among = _keys(db, number, selection) if selection.is_filtered else None
            near = nearest(parts, queries, limit=limit, among=among, max_distance=max_distance)
            images = [[image_of(one) for one in keys] for keys in near]
            sql, parameters = selections.candidates({image for row in images for image in row}, number, selection)
            rows = db.execute(sql, parameters)
            existing = {row[0]: Candidate(row[1], signatures_from_bytes(row[2])) for row in rows}
        return [[existing[image] for image in row if image in existing] for row in images]

    def candidates_by_words(
        self, words: NDArray[np.uint32], *, limit: int, selection: Selection = DEFAULT_SELECTION
    ) -> list[WordCandidate]:
        """Return the highest sums of idf."""
        with self._connections.lend() as db:
            number = catalogue.number(db, selection.collection)
            if number is None:
                return []
            scored = score(self._words.current(), words, collection=number)
            if selection.is_filtered:
                scored = scored.among(_keys(db, number, selection))
            best = [image_of(one) for one in scored.best(limit)]
            sql, parameters = selections.word_candidates(best, number, selection)
            existing = {row[0]: WordCandidate(row[1], row[2]) for row in db.execute(sql, parameters)}
        return [existing[image] for image in best if image in existing]

    def records(self, filepaths: Sequence[str], *, collection: str = DEFAULT_COLLECTION) -> dict[str, Record]:
        """Return the records of the filepaths that are stored."""
        with self._connections.lend() as db:
            rows = db.execute(tables.RECORDS, [collection, json.dumps(filepaths)])
            return {row[0]: tables.record(row, collection) for row in rows}

    def metadata(
        self,
        filepaths: Sequence[str],
        *,
        collection: str = DEFAULT_COLLECTION,
    ) -> dict[str, Mapping[str, Any] | None]:
        """Return the metadata of the filepaths that are stored."""
        with self._connections.lend() as db:
            rows = db.execute(tables.METADATA, [collection, json.dumps(filepaths)])
            return {path: tables.read_metadata(metadata) for path, metadata in rows}

    def filepaths(self, *, offset: int, limit: int, selection: Selection = DEFAULT_SELECTION) -> Page:
        """Return filepaths by seq: the offset skips entries of one small index, not records."""
        with self._connections.lend() as db:
            keep, parameters = selections.condition(db, catalogue.number(db, selection.collection), selection)
            sql = f"SELECT path, seq FROM images WHERE {keep} ORDER BY seq, id LIMIT ? OFFSET ?"  # noqa: S608 - no input
            return _page(db.execute(sql, [*parameters, limit, offset]).fetchall(), after=0)

    def filepaths_after(self, seq: int, *, limit: int, selection: Selection = DEFAULT_SELECTION) -> Page:
        """Return the filepaths with a higher seq."""
        with self._connections.lend() as db:
            keep, parameters = selections.condition(db, catalogue.number(db, selection.collection), selection)
            sql = f"SELECT path, seq FROM images WHERE {keep} AND seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - no input
            return _page(db.execute(sql, [*parameters, seq, limit]).fetchall(), after=seq)

    def count(self, *, selection: Selection = DEFAULT_SELECTION) -> int:
        """Return the number of images, without a filter that of the catalogue."""
        with self._connections.lend() as db:
            if not selection.is_filtered:
                existing = catalogue.collection(db, selection.collection)
                return existing.images if existing else 0
            keep, parameters = selections.condition(db, catalogue.number(db, selection.collection), selection)
            return int(db.execute(f"SELECT count(*) FROM images WHERE {keep}", parameters).fetchone()[0])  # noqa: S608 - no input

    def collections(self) -> list[Collection]:
        """Return all collections."""
        with self._connections.lend() as db:
            return catalogue.collections(db)

    def collection(self, name: str) -> Collection | None:
        """Return one collection."""
        with self._connections.lend() as db:
            return catalogue.collection(db, name)

    def create_collection(self, name: str) -> None:
        """Add an entry, unless there is one."""
        with self._connections.transaction() as db:
            catalogue.create(db, name)

    def put_collection(self, name: str, *, max_images: int | None) -> None:
        """Add or change an entry."""
        with self._connections.transaction() as db:
            catalogue.put(db, name, max_images=max_images)

    def delete_collection(self, name: str) -> bool:
        """Delete the entry of a collection without images."""
        with self._connections.transaction() as db:
            return catalogue.delete(db, name)

    def refresh(self) -> None:
        """Do nothing: every search reads all earlier commits."""

    def purge(self, *, before: int, limit: int) -> int:
        """Delete old tombstones and patches."""
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

    def disk(self) -> Disk:
        """Return the size of the file and those beside it, also of thumbnails."""
        return disk_of(self._path)

    def close(self) -> None:
        """Close every connection; those in use are closed when returned."""
        self._connections.close()
        self._index.close()


def _keys(db: sqlite3.Connection, collection: int, selection: Selection) -> Keys:
    """Return the ascending keys of the images that pass the filter."""
    keep, parameters = selections.condition(db, collection, selection)
    rows = db.execute(f"SELECT id FROM images WHERE {keep}", parameters)  # noqa: S608 - no input
    return np.sort(np.fromiter((key(collection, image) for (image,) in rows), np.int64))


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
