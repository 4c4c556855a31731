"""The journal of adds: the images that were sent to a service. A second run sends only the rest."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from itertools import groupby
from pathlib import Path
from typing import Self

from match_cli.discovery import Source
from match_cli.exits import UsageProblem
from match_cli.state_files import opening
from match_client.results import DEFAULT_COLLECTION

VERSION = 3
TABLES = """
CREATE TABLE images (
    source TEXT NOT NULL,
    filepath TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    code TEXT,
    task TEXT,
    request TEXT,
    number INTEGER,
    metadata TEXT,
    run INTEGER NOT NULL,
    listed INTEGER,
    PRIMARY KEY (source, filepath)
) WITHOUT ROWID;
CREATE INDEX open_images ON images (state, request, number) WHERE state IN ('sending', 'accepted');
CREATE INDEX names ON images (filepath);
CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, batch TEXT);
"""
# From each earlier version to the next one.
UPGRADES = {
    1: "ALTER TABLE runs ADD COLUMN batch TEXT",
    2: "ALTER TABLE images ADD COLUMN listed INTEGER",
}
NAMES = 1000
# After every name that begins with a text.
LAST_CHARACTER = "\U0010ffff"
PUT = """
INSERT INTO images (source, filepath, version, state, request, number, metadata, run)
VALUES (:source, :filepath, :version, 'sending', :request, :number, :metadata, :run)
ON CONFLICT (source, filepath) DO UPDATE SET
    version = excluded.version, state = 'sending', code = NULL, task = NULL,
    request = excluded.request, number = excluded.number, metadata = excluded.metadata, run = excluded.run
"""
UNSEEN = """
SELECT source, filepath FROM images
WHERE (source, filepath) > (:source, :filepath) AND substr(source, 1, length(:folder)) = :folder
    AND run < :run AND state IN ('stored', 'accepted')
ORDER BY source, filepath LIMIT :limit
"""
# The stored images whose names begin with a text.
STORED = "FROM images WHERE state = 'stored' AND filepath >= :prefix AND filepath < :end"
COUNT_STORED = f"SELECT count(*) {STORED}"
STORED_NAMES = f"SELECT DISTINCT filepath {STORED} AND filepath > :after ORDER BY filepath LIMIT :limit"
DELETE_UNLISTED = """
UPDATE images SET state = 'deleted'
WHERE state = 'stored' AND filepath >= :prefix AND filepath < :end AND listed IS NOT :run
"""

# The path or URL of an image, and its name.
Key = tuple[str, str]
START: Key = ("", "")


def key_of(image: Source) -> Key:
    """Return the key of an image."""
    return image.source, image.filepath


class State(StrEnum):
    """The state of an image in the journal."""

    SENDING = "sending"
    ACCEPTED = "accepted"
    STORED = "stored"
    FAILED = "failed"
    # Stored, and deleted by others.
    DELETED = "deleted"


class Seen(Enum):
    """The earlier runs' knowledge of an image.

    DELETED: an earlier run stored it, and the service has it no longer. IN_THIS_RUN: this run sends it or waits for it.
    """

    NEVER = auto()
    STORED = auto()
    DELETED = auto()
    IN_THIS_RUN = auto()


@dataclass(frozen=True, slots=True)
class Group:
    """Images of one request, by their numbers in it. `request` is its idempotency key."""

    request: str
    images: Mapping[int, Source]


@dataclass(frozen=True, slots=True)
class Open:
    """An accepted image whose task has not ended."""

    key: Key
    task: str


class Journal:
    """The journal of one service and collection; a context manager.

    An image is written as `sending` before its request is sent. After an interruption the next run sends the same
    request again, with the same idempotency key, and the service returns the existing tasks. Each method
    commits, except that `check` leaves its marks to the next one.
    """

    def __init__(self, path: Path) -> None:
        with opening(path) as self._db:
            if self._prepare() > VERSION:
                raise UsageProblem(f"the journal {path} is of another version of match")

    def _prepare(self) -> int:
        """Lock the file, create or upgrade its tables, begin a run, and return the version that the file had."""
        # One run at a time: the lock is held until the connection is closed, also by kill -9.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN EXCLUSIVE")
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in TABLES.split(";\n"):
                self._db.execute(statement)
        for earlier in range(version or VERSION, VERSION):
            self._db.execute(UPGRADES[earlier])
        if version < VERSION:
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        self.run = self._db.execute("INSERT INTO runs DEFAULT VALUES").lastrowid or 0
        self._db.execute("COMMIT")
        return version

    @classmethod
    def of(cls, folder: Path, url: str, collection: str | None) -> Self:
        """Return the journal of a service and collection."""
        digest = hashlib.sha256(f"{url.rstrip('/')}\n{collection or DEFAULT_COLLECTION}".encode()).hexdigest()
        return cls(folder / f"journal-{digest[:16]}.db")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def check(self, image: Source, *, is_again: bool = False) -> Seen:
        """Return whether this version of an image has to be sent; note that the image exists.

        `is_again`: earlier runs do not count.
        """
        row = self._db.execute(
            "SELECT version, state, run, code FROM images WHERE source = ? AND filepath = ?", key_of(image)
        ).fetchone()
        if row is None or row[0] != image.version:
            return Seen.NEVER
        state, run, code = row[1:]
        if state == State.DELETED:
            return Seen.DELETED
        if is_again and run < self.run and state == State.STORED:
            return Seen.NEVER
        # A resumed request had another copy of the image: this one needs an idempotency key of its own.
        if state not in {State.STORED, State.ACCEPTED} and (run < self.run or code == "idempotency_conflict"):
            return Seen.NEVER
        self._mark(key_of(image))
        return Seen.STORED if run < self.run and state == State.STORED else Seen.IN_THIS_RUN

    def sending(self, group: Group) -> None:
        """Write the images of a request that is about to be sent."""
        rows = [
            {
                "source": image.source,
                "filepath": image.filepath,
                "version": image.version,
                "request": group.request,
                "number": number,
                "metadata": None if image.metadata is None else json.dumps(image.metadata),
                "run": self.run,
            }
            for number, image in group.images.items()
        ]
        with self._transaction():
            self._db.executemany(PUT, rows)

    def finish(self, outcomes: Iterable[tuple[Key, State, str | None, str | None]]) -> None:
        """Write the states of images: each with its key, state, code of failure and task."""
        rows = [(state, code, task, *key) for key, state, code, task in outcomes]
        with self._transaction():
            self._db.executemany(
                "UPDATE images SET state = ?, code = ?, task = ?, request = NULL, number = NULL, metadata = NULL "
                "WHERE source = ? AND filepath = ?",
                rows,
            )

    def unfinished_batch(self) -> str | None:
        """Return the batch of the last run if it was interrupted while it sent images."""
        [batch] = self._db.execute(
            "SELECT (SELECT batch FROM runs WHERE number < :run AND batch IS NOT NULL ORDER BY number DESC LIMIT 1) "
            "WHERE EXISTS (SELECT 1 FROM images WHERE state = 'sending')",
            {"run": self.run},
        ).fetchone() or [None]
        return None if batch is None else str(batch)

    def begin_batch(self, batch: str) -> None:
        """Write the batch of this run."""
        with self._transaction():
            self._db.execute("UPDATE runs SET batch = ? WHERE number = ?", (batch, self.run))

    def unfinished(self) -> Iterator[Group]:
        """Yield the requests that were being sent when an earlier run was interrupted."""
        rows = self._db.execute(
            "SELECT request, number, source, filepath, version, metadata FROM images "
            "WHERE state = 'sending' AND run < ? ORDER BY request, number",
            (self.run,),
        ).fetchall()
        for request, group in groupby(rows, key=lambda row: str(row[0])):
            images = {
                number: Source(
                    source=source,
                    filepath=filepath,
                    version=version,
                    size=0,
                    metadata=None if metadata is None else json.loads(metadata),
                )
                for _, number, source, filepath, version, metadata in group
            }
            yield Group(request, images)

    def open(self, limit: int, *, after: Key = START) -> Sequence[Open]:
        """Return accepted images whose tasks have not ended, in the order of their keys."""
        rows = self._db.execute(
            "SELECT source, filepath, task FROM images "
            "WHERE state = 'accepted' AND (source, filepath) > (?, ?) ORDER BY source, filepath LIMIT ?",
            (*after, limit),
        )
        return [Open((source, filepath), task) for source, filepath, task in rows]

    def count(self, state: State) -> int:
        """Return the number of images in a state."""
        [number] = self._db.execute("SELECT count(*) FROM images WHERE state = ?", (state,)).fetchone()
        return int(number)

    def count_stored(self, prefix: str) -> int:
        """Return the number of stored images whose names begin with a text."""
        return int(self._db.execute(COUNT_STORED, _range(prefix)).fetchone()[0])

    def stored_names(self, prefix: str) -> Iterator[Sequence[str]]:
        """Yield the names of stored images that begin with a text, some at a time."""
        parameters = _range(prefix) | {"after": "", "limit": NAMES}
        while names := [str(name) for [name] in self._db.execute(STORED_NAMES, parameters)]:
            yield names
            parameters["after"] = names[-1]

    def common_prefix(self) -> str:
        """Return the text that the names of all images begin with."""
        names = self._db.execute("SELECT min(filepath), max(filepath) FROM images").fetchone()
        return common_prefix(*(name or "" for name in names))

    def mark_listed(self, names: Iterable[str]) -> None:
        """Note that the service has the images with these names."""
        with self._transaction():
            self._db.executemany(
                "UPDATE images SET listed = ? WHERE filepath = ?", [(self.run, name) for name in names]
            )

    def end_comparison(self, prefix: str) -> None:
        """Note that the service has deleted the stored images that begin with a text and are not marked as listed."""
        with self._transaction():
            self._db.execute(DELETE_UNLISTED, _range(prefix) | {"run": self.run})

    def unseen(self, folder: str, limit: int, *, after: Key = START) -> Sequence[Key]:
        """Return the images below a folder that this run has not seen, in the order of their keys."""
        rows = self._db.execute(
            UNSEEN,
            {"run": self.run, "folder": folder, "limit": limit, "source": after[0], "filepath": after[1]},
        )
        return list(rows)

    def has_name(self, filepath: str) -> bool:
        """Return whether an image of this run has the name."""
        query = "SELECT 1 FROM images WHERE filepath = ? AND run = ?"
        return self._db.execute(query, (filepath, self.run)).fetchone() is not None

    def forget(self, keys: Iterable[Key]) -> None:
        """Remove images."""
        with self._transaction():
            self._db.executemany("DELETE FROM images WHERE source = ? AND filepath = ?", list(keys))

    def _mark(self, key: Key) -> None:
        """Note that this run has seen an image; a lost note is only one more comparison."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
        self._db.execute("UPDATE images SET run = ? WHERE source = ? AND filepath = ?", (self.run, *key))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit the marks so far and the statements of the `with` block."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            # SQLite itself has rolled back where the disk is full.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def common_prefix(first: str, last: str) -> str:
    """Return the text that two texts, and all texts between them, begin with."""
    length = next((index for index, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)
    return first[: len(first) if length is None else length]


def _range(prefix: str) -> dict[str, str | int]:
    """Return the bounds of the names that begin with a text."""
    return {"prefix": prefix, "end": prefix + LAST_CHARACTER}
