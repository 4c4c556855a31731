"""Deletion of selected images: by the start of their filepaths, and by metadata."""

import secrets
from contextlib import suppress
from dataclasses import dataclass

from common.errors import InputError, MatchError, Overloaded
from common.queue.batches import Batches
from common.queue.items import AddItem, NotEnqueued
from common.queue.jobs import SINGLE_QUEUE, ImageSelection, RequestContext
from common.queue.ledger import Ledger
from common.queue.publisher import Publisher
from common.queue.tasks import Action, Task
from common.redis.client import RETRY_AFTER_S
from common.store.base import Selection, Store


class UnexpectedCount(InputError):
    """The number of selected images is not the expected one."""

    code = "unexpected_count"


@dataclass(frozen=True, slots=True)
class DeleteSelected:
    """Deletes the images of a selection as a batch, which includes all adds that were accepted before."""

    store: Store
    ledger: Ledger
    batches: Batches
    publisher: Publisher

    def count(self, selection: Selection, *, expected: int | None) -> int:
        """Return the number of stored images that a deletion would delete now.

        Raises UnexpectedCount if it is another one than `expected`.
        """
        self.store.refresh()
        count = self.store.count(selection=selection)
        if expected is not None and count != expected:
            message = f"expect: {count} images are selected, not {expected}; nothing was deleted"
            raise UnexpectedCount(message, field="expect")
        return count

    def delete(self, selection: Selection, context: RequestContext, *, owner: str, expected: int | None) -> Task:
        """Enqueue the deletion, and return the task that directs its batch.

        `owner` is the name of the API key; empty without keys. Raises UnexpectedCount if another number of images than
        `expected` is stored, and Overloaded if too many tasks are open.
        """
        count = self.count(selection, expected=expected)
        about = {"collection": selection.collection, "owner": owner, "request_id": context.request_id}
        batch = self.batches.join(secrets.token_hex(16), **about)
        try:
            item = AddItem(selection=ImageSelection(filepath_prefix=selection.filepath_prefix, where=selection.where))
            [result] = self.ledger.enqueue(
                [item],
                queue=SINGLE_QUEUE,
                context=context,
                collection=selection.collection,
                action=Action.DELETE_IMAGES,
                batch=batch,
                is_counted=False,
            )
            if isinstance(result, NotEnqueued):
                raise Overloaded("too many tasks are waiting", retry_after=RETRY_AFTER_S)
            # The deletion is accepted, and corrects the number in the end.
            with suppress(MatchError):
                self.batches.count(batch.id, total=count)
        finally:
            # Without Redis the batch ends when the lease of this request expires.
            with suppress(MatchError):
                self.ledger.leave_batch(batch)
        self.publisher.send([result.task], queue=result.queue)
        return result.task
