"""Local features in the database: those of some images, and the words of images as postings."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.images.local_features.features import encoded_words
from common.store.sqlite.blocks import Keys, image_of, key
from common.store.sqlite.postings import Postings, group

# Images whose features are in memory at once: 10 MB.
BATCH = 8_192
_BY_ID = """
SELECT collection, id, features FROM local_features JOIN images ON id = image
WHERE image IN (SELECT value FROM json_each(?)) ORDER BY collection, id
"""
_BY_CHANGE = "SELECT collection, id, features FROM images LEFT JOIN local_features ON image = id WHERE change > ?"
_PURGED = "SELECT collection, id FROM purged WHERE change > ?"


@dataclass(frozen=True, slots=True, eq=False)
class WordChanges:
    """The ascending keys of some images that changed, and the postings of those that have words now."""

    touched: Keys
    postings: Postings | None


def read_words(db: sqlite3.Connection, images: Keys) -> Iterator[Postings]:
    """Yield the postings of those images that have local features; `images` are their ascending keys."""
    for start in range(0, len(images), BATCH):
        rows = db.execute(
            _BY_ID, [json.dumps([image_of(each) for each in images[start : start + BATCH].tolist()])]
        ).fetchall()
        if rows:
            yield _postings(rows)


def read_word_changes(db: sqlite3.Connection, *, after: int) -> Iterator[WordChanges]:
    """Yield the images that changed after the transaction `after`, in batches."""
    cursor = db.execute(_BY_CHANGE, [after])
    while rows := cursor.fetchmany(BATCH):
        rows.sort()
        with_words = [row for row in rows if row[-1] is not None]
        touched = _keys(rows)
        yield WordChanges(touched, _postings(with_words) if with_words else None)
    purged = _keys(sorted(db.execute(_PURGED, [after])))
    yield WordChanges(purged, None)


def _postings(rows: Sequence[tuple[int, int, bytes]]) -> Postings:
    counts, words = encoded_words([features for _, _, features in rows])
    return group(_keys(rows), counts, words)


def _keys(rows: Sequence[tuple[Any, ...]]) -> Keys:
    """Return the keys of images, from rows that begin with collection and id."""
    return np.array([key(collection, image) for collection, image, *_ in rows], np.int64)
