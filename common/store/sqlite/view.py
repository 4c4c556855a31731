"""The signatures as of one transaction: segments, and in memory the later changes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from common.store.sqlite.blocks import EMPTY, Block, Keys, join, key
from common.store.sqlite.changes import Changes
from common.store.sqlite.scan import Live
from common.store.sqlite.segments import Segment

_NO_KEYS = np.zeros(0, np.int64)
_NONE_DEAD = np.zeros(0, np.intp)
# A new segment replaces the segments before it that are at most so many times as large. Their number stays logarithmic,
# and a signature is written some ten times until a million images are stored.
MERGED_RATIO = 2
# So many signatures are scanned as one block: copying them takes less time than scanning each of their blocks.
JOINED = 8_192


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """All signatures after the transaction `change`.

    `listed` are the names in the database's list of segments. `parts` are the blocks of `segments`. `tail` has the
    signatures that the segments lack, and `gone` the ascending keys of images that exist only in segments.
    """

    change: int
    listed: tuple[str, ...]
    segments: tuple[Segment, ...]
    parts: tuple[Live, ...]
    tail: Block = EMPTY
    gone: Keys = field(default_factory=lambda: _NO_KEYS)

    @property
    def changed(self) -> int:
        """Return the number of entries that the segments lack."""
        return len(self.tail) + len(self.gone)

    @property
    def changed_keys(self) -> Keys:
        """Return the ascending keys of the images that changed after the segments."""
        return np.union1d(self.tail.keys, self.gone)

    @property
    def blocks(self) -> tuple[Live, ...]:
        """Return all signatures."""
        return (*self.parts, Live(self.tail, _NONE_DEAD))

    def of_collection(self, number: int) -> tuple[Live, ...]:
        """Return the signatures of one collection, which are adjacent in each block."""
        bounds = np.array([key(number, 0), key(number + 1, 0)])
        ranges = [(block, *np.searchsorted(block.block.keys, bounds).tolist()) for block in self.blocks]
        parts = [block.part(first, end) for block, first, end in ranges if first < end]
        if len(parts) == 1 or sum(len(part.block) for part in parts) > JOINED:
            return tuple(parts)
        return (Live(join([part.alive() for part in parts]), _NONE_DEAD),)

    def after(self, change: int, changes: Sequence[Changes]) -> "View":
        """Return the view after the transaction `change`."""
        fresh = join([part.block for part in changes])
        gone = np.unique(np.concatenate([_NO_KEYS, *(part.gone for part in changes)]))
        touched = np.union1d(fresh.keys, gone)
        if not len(touched):
            return replace(self, change=change)
        kept = Live(self.tail, _NONE_DEAD).without(touched).alive()
        return replace(
            self,
            change=change,
            parts=tuple(part.without(touched) for part in self.parts),
            tail=join([kept, fresh]),
            gone=np.setdiff1d(np.union1d(self.gone, gone), fresh.keys),
        )

    def first_merged(self) -> int:
        """Return the index of the first segment that the next one replaces, with all after it."""
        first, size = len(self.segments), self.changed
        for index in reversed(range(len(self.segments))):
            rows, dead = len(self.segments[index].block), len(self.parts[index].dead)
            if rows <= MERGED_RATIO * size or 2 * dead > rows:
                first = index
                size = self.changed + sum(len(segment.block) for segment in self.segments[first:])
        return first

    def merged(self, name: str, first: int) -> Segment:
        """Return the segment that replaces those from the index `first`, and the tail."""
        block = join([*(part.alive() for part in self.parts[first:]), self.tail])
        gone = np.unique(np.concatenate([self.gone, *(segment.gone for segment in self.segments[first:])]))
        # Without older segments no older state exists to be hidden.
        return Segment(name, block, np.setdiff1d(gone, block.keys) if first else _NO_KEYS)


def view_of(segments: Sequence[Segment], change: int) -> View:
    """Return the view of segments that cover all transactions up to `change`; later ones replace earlier states."""
    parts: list[Live] = []
    for segment in segments:
        touched = segment.touched
        parts = [part.without(touched) for part in parts]
        parts.append(Live(segment.block, _NONE_DEAD))
    return View(change, tuple(segment.name for segment in segments), tuple(segments), tuple(parts))
