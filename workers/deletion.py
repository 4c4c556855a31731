"""Deletion of a collection or of selected images: after the earlier work has ended, in bounded steps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from time import monotonic

from common.errors import QueueError
from common.queue.batches import Batches
from common.queue.deferred_tasks import DeferredTasks
from common.queue.deleted_collections import DeletedCollections
from common.queue.deleted_images import DeletedImages
from common.queue.jobs import ImageSelection
from common.queue.tasks import Claim, State
from common.store.base import Selection, Store
from common.store.deletion import delete_before
from common.store.labels import labels, required_labels

# Images of one step: two requests to the store.
STEP = 1000
# Time that one run of the task waits or deletes. Then its message is requeued, so that a worker's shutdown and other
# tasks of its thread wait no longer.
MAX_RUN_S = 20.0
POLL_EVERY_S = 0.5


class Unfinished(QueueError):
    """The deletion continues when its message is delivered again."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """Deletes collections and images; a process may die at any time, and another one continues."""

    collections: DeletedCollections
    images: DeletedImages
    deferred: DeferredTasks
    batches: Batches
    store: Store
    clock: Callable[[], float] = monotonic
    _stopping: Event = field(default_factory=Event)

    def run(self, claim: Claim) -> None:
        """Delete the images of requests before the claim's; a whole collection too, if it is empty then.

        Raises Unfinished if that takes longer than MAX_RUN_S or the process is shutting down, StoreUnavailable or
        QueueError when it cannot continue now, and StoreError when it never can.
        """
        deadline = self.clock() + MAX_RUN_S
        # From here on no earlier add of these images begins.
        while self._mark(claim):
            self._check_time(deadline, "earlier tasks of the collection are running")
            self._stopping.wait(POLL_EVERY_S)
        if claim.selection is None:
            self.deferred.end_waits(claim.collection, before=claim.seq)
        # The time by the clock of the sequence numbers, which are in microseconds.
        added = claim.seq // 1000
        while True:
            step = delete_before(self.store, _selection(claim), seq=claim.seq, added=added, limit=STEP)
            if claim.batch is not None and step.deleted:
                self.batches.count(claim.batch, ended={State.SUCCEEDED: step.deleted})
            if step.is_last:
                break
            self._check_time(deadline, "images are left")
        if claim.batch is not None:
            self._correct(claim.batch)
        if claim.selection is None:
            self.store.delete_collection(claim.collection)

    def cancel(self, claim: Claim) -> None:
        """Let earlier adds begin again that a cancelled deletion of images has stopped."""
        if claim.selection is not None:
            self.images.unmark(claim.collection, seq=claim.seq)

    def begin_shutdown(self) -> None:
        """Begin no more steps: the process is shutting down."""
        self._stopping.set()

    def _mark(self, claim: Claim) -> bool:
        if claim.selection is None:
            return self.collections.mark(claim.collection, seq=claim.seq)
        return self.images.mark(claim.collection, claim.selection, seq=claim.seq)

    def _correct(self, batch_id: str) -> None:
        """Set the number of the batch's images to that of the deleted ones, which was estimated at the beginning."""
        batch = self.batches.get(batch_id)
        if batch is not None and batch.begun != batch.total:
            self.batches.count(batch_id, total=batch.begun - batch.total)

    def _check_time(self, deadline: float, reason: str) -> None:
        if self._stopping.is_set() or self.clock() >= deadline:
            raise Unfinished(reason)


def is_deleted(claim: Claim) -> bool:
    """Return whether a later request has deleted the image of an add, before a worker began it."""
    return any(_selects(deletion, claim) for deletion in claim.deletions)


def _selects(deletion: ImageSelection, claim: Claim) -> bool:
    if not claim.filepath.startswith(deletion.filepath_prefix):
        return False
    return not deletion.where or labels(claim.metadata).issuperset(required_labels(deletion.where))


def _selection(claim: Claim) -> Selection:
    if claim.selection is None:
        return Selection(collection=claim.collection)
    chosen = claim.selection
    return Selection(collection=claim.collection, where=chosen.where, filepath_prefix=chosen.filepath_prefix)
