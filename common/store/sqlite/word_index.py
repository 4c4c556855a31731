"""The words that a process looks up: the postings of shared segments, and in memory those of later changes."""

import sqlite3
import threading
from dataclasses import dataclass, replace

from common.errors import StoreUnavailable
from common.store.sqlite.builder import Builder, listed
from common.store.sqlite.connections import Connections
from common.store.sqlite.features import WordChanges, read_word_changes
from common.store.sqlite.postings import GROUP, LivePostings, merged
from common.store.sqlite.segments import UnusableSegmentError
from common.store.sqlite.signature_index import SignatureIndex
from common.store.sqlite.view import View

# A later group of the tail is merged with an earlier one that is at most so many times as large: few groups remain.
_MERGED_RATIO = 2
# Other processes may replace the segments between two reads of their list.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, eq=False)
class _Words:
    """All words after the transaction `change`: those of the segments `listed`, and the later changes."""

    listed: tuple[str, ...]
    change: int
    segments: tuple[LivePostings, ...]
    tail: tuple[LivePostings, ...] = ()

    def after(self, changes: WordChanges) -> "_Words":
        """Return the words after some changes."""
        if not len(changes.touched):
            return self
        segments = tuple(part.without(changes.touched) for part in self.segments)
        tail = [part.without(changes.touched) for part in self.tail]
        if changes.postings is not None:
            fresh = LivePostings(changes.postings)
            while tail and len(tail[-1]) <= _MERGED_RATIO * len(fresh) and len(tail[-1]) + len(fresh) <= GROUP:
                fresh = LivePostings(merged([tail.pop(), fresh]))
            tail.append(fresh)
        return replace(self, segments=segments, tail=tuple(tail))


class WordIndex:
    """The index; it follows the segments of `signatures`, and reads the later changes when words are looked up."""

    def __init__(self, connections: Connections, builder: Builder, signatures: SignatureIndex) -> None:
        self._connections = connections
        self._builder = builder
        self._signatures = signatures
        self._lock = threading.Lock()
        self._words: _Words | None = None

    def current(self) -> tuple[LivePostings, ...]:
        """Return the postings with everything committed before this call."""
        for _ in range(_ATTEMPTS):
            view = self._signatures.current()
            try:
                with self._lock:
                    words = self._catch_up(view)
            except UnusableSegmentError:
                # The signatures of the segment are usable, so that only this lookup notices the damage.
                self._builder.rebuild()
                continue
            if words is not None:
                return (*words.segments, *words.tail)
        raise StoreUnavailable("embedded store: the segments changed during each of several attempts")

    def _catch_up(self, view: View) -> _Words | None:
        """Return the words of the latest transaction; None if the database lists other segments than the view."""
        with self._connections.lend() as db:
            db.execute("BEGIN")
            names, covered = listed(db)
            if names == view.listed:
                self._words = _latest(db, self._base(view, covered))
            db.execute("COMMIT")
        return self._words if names == view.listed else None

    def _base(self, view: View, covered: int) -> _Words:
        """Return the words from which to continue."""
        if self._words is not None and self._words.listed == view.listed:
            return self._words
        segments: list[LivePostings] = []
        for segment in view.segments:
            touched = segment.touched
            segments = [part.without(touched) for part in segments]
            segments += [LivePostings(each) for each in segment.words()]
        # A view has no segments, although some are listed, where they cannot be written.
        return _Words(view.listed, covered if view.segments else 0, tuple(segments))


def _latest(db: sqlite3.Connection, base: _Words) -> _Words:
    change = db.execute("SELECT change FROM state").fetchone()[0]
    if change == base.change:
        return base
    words = base
    for changes in read_word_changes(db, after=base.change):
        words = words.after(changes)
    return replace(words, change=change)
