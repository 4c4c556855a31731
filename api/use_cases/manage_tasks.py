"""Retry failed tasks and cancel waiting ones."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from api.use_cases.manage_collections import ManageCollections
from common.errors import MatchError
from common.queue.ledger import Ledger
from common.queue.publisher import Publisher
from common.queue.tasks import Action, QueuedTask, RetryRejected, State, Task
from common.uploads import UPLOAD_TTL_S, Uploads


@dataclass(frozen=True, slots=True)
class ManageTasks:
    """Retries and cancels. Both are idempotent, also when two processes run them at once."""

    ledger: Ledger
    uploads: Uploads
    publisher: Publisher

    def retry(self, task_ids: Sequence[str], *, max_open: int | None = None) -> list[RetryRejected | None]:
        """Publish failed tasks again, each with its old sequence number, until `max_open` of a collection are open.

        Return a reason for each rejected task, in order, and None for each published one.
        """
        upload_of = self.ledger.uploads_of(task_ids)
        available = self.uploads.existing(list(upload_of.values()))
        retryable = [task_id for task_id in task_ids if upload_of.get(task_id) in available | {None}]
        outcomes = dict(zip(retryable, self.ledger.retry(retryable, max_open=max_open), strict=True))
        reopened = [outcome for outcome in outcomes.values() if isinstance(outcome, QueuedTask)]
        # The tasks are open from here on, even if a later step fails. Uploads are kept before the tasks are published,
        # so that no worker finishes one of them in between.
        with suppress(MatchError):
            self.uploads.keep(*(upload_of[sent.task_id] for sent in reopened if sent.task_id in upload_of))
        self.publisher.send_again(reopened)
        results = [outcomes.get(task_id, RetryRejected.UPLOAD_LOST) for task_id in task_ids]
        return [result if isinstance(result, RetryRejected) else None for result in results]

    def cancel(self, task_id: str) -> State | None:
        """Cancel a pending task, drop its upload, and return the state it was in: PENDING if it is cancelled now.

        Returns None for a task that is unknown or has expired.
        """
        task = self.ledger.task(task_id)
        if task is None or task.state is not State.PENDING:
            return None if task is None else task.state
        [previous] = self.cancel_many([task_id])
        return previous

    def cancel_many(self, task_ids: Sequence[str]) -> list[State | None]:
        """Cancel pending tasks like `cancel`, and return the states in which they were."""
        upload_of = self.ledger.uploads_of(task_ids)
        # The uploads expire even if this process dies before it drops them. They are not kept again when the cancel
        # comes too late: the worker has a day to finish the task, and uploads of a finished task would never expire.
        self.uploads.drop(list(upload_of.values()), after_s=UPLOAD_TTL_S)
        previous = self.ledger.cancel_many(task_ids)
        # CANCELLED: the first reply to our own cancel was lost.
        cancelled = [
            upload_of[task_id]
            for task_id, state in zip(task_ids, previous, strict=True)
            if task_id in upload_of and state in {State.PENDING, State.CANCELLED}
        ]
        with suppress(MatchError):
            self.uploads.drop(cancelled)
        return previous


def retry_within_quota(
    tasks: Sequence[Task], manage: ManageTasks, collections: ManageCollections
) -> list[RetryRejected | None]:
    """Retry failed tasks of one collection like adds: an image that replaces another one needs no space."""
    left = collections.left(tasks[0].collection) if tasks else None
    if left is None:
        return manage.retry([task.id for task in tasks])
    stored = collections.stored(tasks[0].collection, [task.filepath for task in tasks])
    unlimited = [task.id for task in tasks if task.filepath in stored or task.action is not Action.ADD]
    limited = [task.id for task in tasks if task.id not in unlimited]
    outcomes = dict(zip(limited, manage.retry(limited, max_open=left), strict=True))
    outcomes |= zip(unlimited, manage.retry(unlimited), strict=True)
    return [outcomes[task.id] for task in tasks]
