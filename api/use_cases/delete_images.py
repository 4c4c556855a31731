"""Delete images: a tombstone per filepath, ordered among all requests."""

from collections.abc import Iterable
from dataclasses import dataclass
from time import time_ns

from common.errors import StoreError, StoreUnavailable
from common.queue.sequence import SequenceNumbers
from common.store.base import Store, Tombstone, Verdict


@dataclass(frozen=True, slots=True)
class DeleteImages:
    """Deletes images; an add that was accepted earlier and is stored later does not restore one."""

    sequence: SequenceNumbers
    store: Store

    def delete(self, filepaths: Iterable[str], *, collection: str) -> None:
        """Delete these filepaths of the collection; an unknown one is not an error.

        Raises StoreUnavailable when the store cannot take a tombstone now, StoreError when it rejects one.
        """
        # All deletions of one request share one sequence number.
        seq, now_ms = self.sequence.next(), time_ns() // 1_000_000
        tombstones = [
            Tombstone(collection=collection, filepath=filepath, seq=seq, added=now_ms)
            for filepath in dict.fromkeys(filepaths)
        ]
        for written in self.store.put(tombstones):
            if written.verdict is Verdict.RETRY:
                raise StoreUnavailable(f"the store cannot delete now: {written.reason}")
            if written.verdict is Verdict.REJECTED:
                raise StoreError(written.reason)
