"""Local features in the database: those of some images, and the words of images as postings."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.images.local_features.features import encoded_words
from common.store.sqlite.blocks import Ids
from common.store.sqlite.postings import Postings, group

# Images whose features are in memory at once: 10 MB.
BATCH = 8_192
_BY_ID = "SELECT image, features FROM local_features WHERE image IN (SELECT value FROM json_each(?)) ORDER BY image"
_BY_CHANGE = "SELECT id, features FROM images LEFT JOIN local_features ON image = id WHERE change > ?"
_PURGED = "SELECT id FROM purged WHERE change > ?"


@dataclass(frozen=True, slots=True, eq=False)
class WordChanges:
    """The ascending ids of some images that changed, and the postings of those that have words now."""

    touched: Ids
    postings: Postings | None


def read_words(db: sqlite3.Connection, images: Ids) -> Iterator[Postings]:
    """Yield the postings of those images that have local features; `images` is ascending."""
    for start in range(0, len(images), BATCH):
        rows = db.execute(_BY_ID, [json.dumps(images[start : start + BATCH].tolist())]).fetchall()
        if rows:
            yield _postings(rows)


def read_word_changes(db: sqlite3.Connection, *, after: int) -> Iterator[WordChanges]:
    """Yield the images that changed after the transaction `after`, in batches."""
    cursor = db.execute(_BY_CHANGE, [after])
    while rows := cursor.fetchmany(BATCH):
        rows.sort()
        with_words = [row for row in rows if row[1] is not None]
        touched = np.array([image for image, _ in rows], np.int64)
        yield WordChanges(touched, _postings(with_words) if with_words else None)
    purged = np.array(sorted(image for (image,) in db.execute(_PURGED, [after])), np.int64)
    yield WordChanges(purged, None)


def _postings(rows: Sequence[tuple[int, bytes]]) -> Postings:
    counts, words = encoded_words([features for _, features in rows])
    return group(np.array([image for image, _ in rows], np.int64), counts, words)
