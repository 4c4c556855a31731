"""The journal of adds: the images that were sent to a service. A second run sends only the rest."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from itertools import groupby
from pathlib import Path
from typing import Self

from match_cli.discovery import Source
from match_cli.exits import UsageProblem
from match_client.results import DEFAULT_COLLECTION

VERSION = 2
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
    PRIMARY KEY (source, filepath)
) WITHOUT ROWID;
CREATE INDEX open_images ON images (state, request, number) WHERE state IN ('sending', 'accepted');
CREATE INDEX names ON images (filepath);
CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, batch TEXT);
"""
# From version 1.
UPGRADE = "ALTER TABLE runs ADD COLUMN batch TEXT"
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


class Seen(Enum):
    """The earlier runs' knowledge of an image: IN_THIS_RUN if this run sends it or waits for it."""

    NEVER = auto()
    STORED = auto()
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
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            # One run at a time: the lock is held until the connection is closed, also by kill -9.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("BEGIN EXCLUSIVE")
            [version] = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in TABLES.split(";\n"):
                    self._db.execute(statement)
            if version == 1:
                self._db.execute(UPGRADE)
            if version in {0, 1}:
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            self.run = self._db.execute("INSERT INTO runs DEFAULT VALUES").lastrowid or 0
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" in str(error):
                raise UsageProblem(f"another run is using the journal {path}") from error
            raise UsageProblem(f"the journal {path}: {error}") from error
        if version not in {0, 1, VERSION}:
            self._db.close()
            raise UsageProblem(f"the journal {path} is of another version of match")

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
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
