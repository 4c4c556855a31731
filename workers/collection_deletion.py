"""Deletion of a collection: after the earlier work has ended, its images are deleted in bounded steps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from time import monotonic

from common.errors import QueueError
from common.queue.deleted_collections import DeletedCollections
from common.queue.tasks import Claim
from common.store.base import Selection, Store
from common.store.deletion import delete_before

# Images of one step: two requests to the store.
STEP = 1000
# Time that one run of the task waits or deletes. Then its message is requeued, so that a worker's shutdown and other
# tasks of its thread wait no longer.
MAX_RUN_S = 20.0
POLL_EVERY_S = 0.5


class Unfinished(QueueError):
    """The deletion continues when its message is delivered again."""


@dataclass(frozen=True, slots=True)
class CollectionDeletion:
    """Deletes collections; a process may die at any time, and another one continues."""

    deleted: DeletedCollections
    store: Store
    clock: Callable[[], float] = monotonic
    _stopping: Event = field(default_factory=Event)

    def run(self, claim: Claim) -> None:
        """Delete the images of requests before the claim's, and the collection if it is empty then.

        Raises Unfinished if that takes longer than MAX_RUN_S or the process is shutting down, StoreUnavailable or
        QueueError when it cannot continue now, and StoreError when it never can.
        """
        deadline = self.clock() + MAX_RUN_S
        # From here on no earlier task of the collection begins.
        while self.deleted.mark(claim.collection, seq=claim.seq):
            self._check_time(deadline, "earlier tasks of the collection are running")
            self._stopping.wait(POLL_EVERY_S)
        self.deleted.end_waits(claim.collection)
        selection = Selection(collection=claim.collection)
        # The time by the clock of the sequence numbers, which are in microseconds.
        added = claim.seq // 1000
        while not delete_before(self.store, selection, seq=claim.seq, added=added, limit=STEP).is_last:
            self._check_time(deadline, "images are left")
        self.store.delete_collection(claim.collection)

    def begin_shutdown(self) -> None:
        """Begin no more steps: the process is shutting down."""
        self._stopping.set()

    def _check_time(self, deadline: float, reason: str) -> None:
        if self._stopping.is_set() or self.clock() >= deadline:
            raise Unfinished(reason)
