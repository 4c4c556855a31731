"""SQL of selections: the images of a collection that pass a filter, by the index that reads the fewest rows."""

import json
import sqlite3
from collections.abc import Iterable

from common.store.base import Selection
from common.store.labels import required_labels
from common.store.sqlite import catalogue

# So many images are read and then sorted or compared with a filter; of more only those that a list or label names.
FEW = 10_000
# Without statistics SQLite prefers an index on two constants to a search by id or path. A plus sign excludes the index.
_LISTED = "collection = ? AND deleted = 0"
_BY_ID = "+collection = ? AND +deleted = 0"
_BY_PATH = "collection = ? AND +deleted = 0"
_LABELLED = " AND id IN (SELECT image FROM labels WHERE label = ?)"
_HAS_LABEL = " AND EXISTS (SELECT 1 FROM labels WHERE label = ? AND image = images.id)"
_CANDIDATES = "SELECT id, path, sig FROM images WHERE id IN (SELECT value FROM json_each(?)) AND "
_WORD_CANDIDATES = """
SELECT id, path, features FROM images JOIN local_features ON image = id
WHERE id IN (SELECT value FROM json_each(?)) AND
"""


def condition(db: sqlite3.Connection, collection: int | None, selection: Selection) -> tuple[str, list[object]]:
    """Return the SQL condition for records that pass the filter, and its parameters."""
    if selection.where and catalogue.count(db, collection) > FEW:
        return _condition(_BY_ID, collection, selection, label=_LABELLED)
    if selection.filepath_prefix:
        keep, parameters = _condition(_BY_PATH, collection, selection, path="path")
        matches = f"SELECT count(*) FROM (SELECT 1 FROM images WHERE {keep} LIMIT {FEW + 1})"  # noqa: S608 - no input
        if db.execute(matches, parameters).fetchone()[0] <= FEW:
            return keep, parameters
    return _condition(_LISTED, collection, selection)


def candidates(images: Iterable[int], collection: int, selection: Selection) -> tuple[str, list[object]]:
    """Return the SQL of the candidates among these ids that pass the filter, and its parameters."""
    return _among(_CANDIDATES, images, collection, selection)


def word_candidates(images: Iterable[int], collection: int, selection: Selection) -> tuple[str, list[object]]:
    """Return the SQL of the candidates by words, like `candidates`."""
    return _among(_WORD_CANDIDATES, images, collection, selection)


def _among(select: str, images: Iterable[int], collection: int, selection: Selection) -> tuple[str, list[object]]:
    keep, parameters = _condition(_BY_ID, collection, selection)
    return select + keep, [json.dumps(sorted(images)), *parameters]


def _condition(
    base: str, collection: int | None, selection: Selection, *, path: str = "+path", label: str = _HAS_LABEL
) -> tuple[str, list[object]]:
    keep, parameters = base, list[object]([collection])
    if selection.filepath_prefix:
        keep += f" AND {path} >= ?"
        parameters.append(selection.filepath_prefix)
    if selection.filepaths_end is not None:
        keep += f" AND {path} < ?"
        parameters.append(selection.filepaths_end)
    needed = required_labels(selection.where)
    return keep + label * len(needed), [*parameters, *needed]
