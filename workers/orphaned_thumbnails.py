"""Retention of thumbnails: deletes those whose image was replaced or deleted."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.store.base import Store
from common.store.thumbnails import Owner, Thumbnails

# With a pass every ten minutes, 720,000 thumbnails a day are compared with their records.
PAGE = 500
PAGES_PER_PASS = 10


@dataclass(slots=True)
class OrphanedThumbnails:
    """The thumbnails, compared with the store; each call continues where the last one ended."""

    store: Store
    thumbnails: Thumbnails
    _position: int = field(default=0, init=False)

    def purge(self) -> None:
        """Delete orphaned thumbnails among the next ones, and begin again after the last."""
        for _ in range(PAGES_PER_PASS):
            owners = self.thumbnails.owners_after(self._position, limit=PAGE)
            if orphans := self._orphans(owners):
                self.thumbnails.delete(orphans)
            if len(owners) < PAGE:
                self._position = 0
                return
            self._position = owners[-1].seq

    def _orphans(self, owners: Sequence[Owner]) -> list[int]:
        """Return the sequence numbers without a record."""
        by_collection: defaultdict[str, list[Owner]] = defaultdict(list)
        for owner in owners:
            by_collection[owner.collection].append(owner)
        orphans = []
        for collection, group in by_collection.items():
            records = self.store.records([owner.filepath for owner in group], collection=collection)
            stored = {record.seq for record in records.values()}
            orphans += [owner.seq for owner in group if owner.seq not in stored]
        return orphans
