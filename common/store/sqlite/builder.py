"""Building of segments: one process of a machine at a time writes them, and lists them in the database."""

import fcntl
import logging
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.store.sqlite.blocks import join
from common.store.sqlite.changes import Changes, count_changes, read_changes
from common.store.sqlite.connections import Connections, wrap_errors
from common.store.sqlite.features import read_words
from common.store.sqlite.postings import LivePostings, regrouped
from common.store.sqlite.segments import Segment, UnusableSegmentError, open_segment, remove_segments, write_segment
from common.store.sqlite.view import View

log = logging.getLogger(__name__)

# Images that changed, from which a search waits for new segments: to read more into memory would take as long.
REBUILT = 65_536
# Images per segment of a rebuild: 30 MB in memory until it is written.
PIECE = 262_144


class Builder:
    """Builder of the segments in `folder`, beside the database."""

    def __init__(self, folder: Path, connections: Connections) -> None:
        self.folder = folder
        self._connections = connections

    def merge(self, view: View) -> None:
        """Replace the view's tail, and the segments that are not much larger, by one segment.

        Do nothing while another process builds, or if another one has built since.
        """
        with self._exclusive(wait=False) as acquired, self._connections.lend() as db:
            if acquired and listed(db)[0] == view.listed:
                first = view.first_merged()
                segment = view.merged(secrets.token_hex(16), first)
                write_segment(self.folder, segment, regrouped(_live_words(db, view, first)))
                self._publish(view.listed, keep=first, names=[segment.name], change=view.change)

    def rebuild(self) -> None:
        """Write segments of everything that the usable segments lack, unless another process has just done so."""
        with self._exclusive(wait=True), closing(self._connections.open()) as db:
            db.execute("BEGIN")
            names, covered = listed(db)
            if not self._are_usable(names):
                kept, covered = 0, 0
            elif count_changes(db, after=covered, limit=REBUILT + 1) <= REBUILT:
                return
            else:
                kept = len(names)
            change = db.execute("SELECT change FROM state").fetchone()[0]
            log.info("writing segments of all signatures to %s", self.folder)
            written = [self._write(db, piece, hides=covered > 0) for piece in _pieces(db, covered)]
            db.execute("COMMIT")
            self._publish(names, keep=kept, names=written, change=change)

    def _write(self, db: sqlite3.Connection, piece: Sequence[Changes], *, hides: bool) -> str:
        name = secrets.token_hex(16)
        gone = np.unique(np.concatenate([part.gone for part in piece]))
        segment = Segment(name, join([part.block for part in piece]), gone)
        words = regrouped(LivePostings(each) for each in read_words(db, segment.touched))
        write_segment(self.folder, segment if hides else replace(segment, gone=gone[:0]), words)
        return name

    def _publish(self, expected: tuple[str, ...], *, keep: int, names: Sequence[str], change: int) -> None:
        """List the new segments after the first `keep`; in one transaction, so that the list is always complete."""
        with self._connections.transaction() as db:
            # Two builders can hold locks only after the deletion of the folder.
            if listed(db)[0] != expected:
                return
            kept = expected[:keep]
            db.executemany("DELETE FROM segments WHERE name = ?", [(name,) for name in expected[keep:]])
            db.executemany("INSERT INTO segments (name, change) VALUES (?, ?)", [(name, change) for name in names])
            db.execute("DELETE FROM purged WHERE change <= ?", [change])
        remove_segments(self.folder, keep=[*kept, *names])

    def _are_usable(self, names: Sequence[str]) -> bool:
        try:
            for name in names:
                open_segment(self.folder, name).words()
        except UnusableSegmentError as error:
            log.warning("all segments are written again: %s", error)
            return False
        return True

    @contextmanager
    def _exclusive(self, *, wait: bool) -> Iterator[bool]:
        """Lock the folder against other builders; the operating system releases the lock of a killed process."""
        with wrap_errors():
            self.folder.mkdir(exist_ok=True)
            with (self.folder / "lock").open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield False
                    return
                yield True


def listed(db: sqlite3.Connection) -> tuple[tuple[str, ...], int]:
    """Return the names of the segments, oldest first, and the last transaction that they cover."""
    rows = db.execute("SELECT name, change FROM segments ORDER BY position").fetchall()
    return tuple(name for name, _ in rows), max((change for _, change in rows), default=0)


def _live_words(db: sqlite3.Connection, view: View, first: int) -> Iterator[LivePostings]:
    """Yield the postings of the images that the view's segments from `first` on and its tail have.

    The database may have later features of an image in the tail. Then a later view hides this state of it.
    """
    hidden = view.changed_keys
    yield from (LivePostings(each) for each in read_words(db, hidden))
    for segment in reversed(view.segments[first:]):
        yield from (LivePostings(each).without(hidden) for each in segment.words())
        hidden = np.union1d(hidden, segment.touched)


def _pieces(db: sqlite3.Connection, after: int) -> Iterator[list[Changes]]:
    piece: list[Changes] = []
    for changes in read_changes(db, after=after, by_id=True):
        piece.append(changes)
        if sum(len(part.block) + len(part.gone) for part in piece) >= PIECE:
            yield piece
            piece = []
    if piece:
        yield piece
