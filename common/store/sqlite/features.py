"""Local features in the database: those of some images, and the words of images as postings."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.images.local_features.features import encoded_words
from common.store.sqlite.blocks import Keys, image_of, key
from common.store.sqlite.postings import Postings, group

# Images whose features are in memory at once: 10 MB.
BATCH = 8_192
_BY_ID = "SELECT image, features FROM local_features WHERE image IN (SELECT value FROM json_each(?))"
_BY_CHANGE = "SELECT collection, id, features FROM images LEFT JOIN local_features ON image = id WHERE change > ?"
_PURGED = "SELECT collection, id FROM purged WHERE change > ?"


@dataclass(frozen=True, slots=True, eq=False)
class WordChanges:
    """The ascending keys of some images that changed, and the postings of those that have words now."""

    touched: Keys
    postings: Postings | None


def read_words(db: sqlite3.Connection, keys: Keys) -> Iterator[Postings]:
    """Yield the postings of those images that have local features; `keys` is ascending."""
    for start in range(0, len(keys), BATCH):
        images = {image_of(one): one for one in keys[start : start + BATCH].tolist()}
        rows = [(images[image], features) for image, features in db.execute(_BY_ID, [json.dumps(list(images))])]
        if rows:
            yield _postings(sorted(rows))


def read_word_changes(db: sqlite3.Connection, *, after: int) -> Iterator[WordChanges]:
    """Yield the images that changed after the transaction `after`, in batches."""
    cursor = db.execute(_BY_CHANGE, [after])
    while batch := cursor.fetchmany(BATCH):
        rows = sorted((key(collection, image), features) for collection, image, features in batch)
        with_words = [row for row in rows if row[1] is not None]
        touched = np.array([one for one, _ in rows], np.int64)
        yield WordChanges(touched, _postings(with_words) if with_words else None)
    purged = np.array(sorted(key(*row) for row in db.execute(_PURGED, [after])), np.int64)
    yield WordChanges(purged, None)


def _postings(rows: Sequence[tuple[int, bytes]]) -> Postings:
    counts, words = encoded_words([features for _, features in rows])
    return group(np.array([one for one, _ in rows], np.int64), counts, words)
