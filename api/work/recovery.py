"""Failed work back into the queue, and waiting work out of it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from api.work.publisher import Publisher
from common.errors import MatchError
from common.queue.ledger import Ledger
from common.queue.tasks import QueuedTask, RetryRejected, State
from common.uploads import UNKEPT_S, Uploads


@dataclass(frozen=True, slots=True)
class Recovery:
    """Retries and cancels; each may be asked for twice, and by two processes at once."""

    ledger: Ledger
    uploads: Uploads
    publisher: Publisher

    def retry(self, task_ids: Sequence[str]) -> list[RetryRejected | None]:
        """Send failed tasks again, each with its old place in the order of requests.

        Returns in the order given why a task stays as it is; None for one that was sent.
        """
        upload_ids = self.ledger.uploads_of(task_ids)
        existing = self.uploads.existing(list(upload_ids.values()))
        able = [task_id for task_id in task_ids if upload_ids.get(task_id) in existing | {None}]
        outcomes = dict(zip(able, self.ledger.retry(able), strict=True))
        opened = [outcome for outcome in outcomes.values() if isinstance(outcome, QueuedTask)]
        # From here on they are open, whatever fails: before they are sent, so that no worker ends them meanwhile.
        with suppress(MatchError):
            self.uploads.keep(*(upload_ids[sent.task_id] for sent in opened if sent.task_id in upload_ids))
        self.publisher.send_again(opened)
        rejections = [outcomes.get(task_id, RetryRejected.UPLOAD_LOST) for task_id in task_ids]
        return [rejection if isinstance(rejection, RetryRejected) else None for rejection in rejections]

    def cancel(self, task_id: str) -> State | None:
        """Cancel a task that waits, drop its upload, and return the state that it was in: PENDING when that was done.

        None for a task that is unknown or was forgotten.
        """
        task = self.ledger.task(task_id)
        if task is None or task.state is not State.PENDING:
            return None if task is None else task.state
        upload_ids = list(self.ledger.uploads_of([task_id]).values())
        # They go by themselves should this process die before it drops them. A worker that is quicker has that day to
        # end the task: were they kept again, those of what it has just ended would stay for ever.
        self.uploads.drop(upload_ids, after_s=UNKEPT_S)
        was = self.ledger.cancel(task_id)
        # Cancelled by ourselves, if the first answer was lost.
        if was in {State.PENDING, State.CANCELLED}:
            with suppress(MatchError):
                self.uploads.drop(upload_ids)
        return was
