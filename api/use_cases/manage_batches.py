"""Cancel a batch: mark it, then cancel its pending tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from api.use_cases.manage_tasks import ManageTasks
from common.queue.batches import Batch, Batches
from common.queue.task_pages import TaskFilter, TaskPages
from common.queue.tasks import State

# Tasks that one step cancels: some milliseconds of Redis's time.
STEP = 500
# Time that a request cancels tasks, each in 50 µs of CPU. Workers cancel the others instead of beginning them.
CANCEL_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class ManageBatches:
    """Cancels batches; a repeated request continues where the last one stopped."""

    batches: Batches
    task_pages: TaskPages
    manage_tasks: ManageTasks
    clock: Callable[[], float] = monotonic

    def cancel(self, batch: Batch) -> Batch:
        """Cancel the pending tasks of the batch, and return its state; an ended batch is unchanged."""
        self.batches.cancel(batch.id)
        deadline = self.clock() + CANCEL_WITHIN_S
        only, cursor = TaskFilter(collection=batch.collection, batch=batch), None
        while batch.pending and self.clock() < deadline:
            page = self.task_pages.page(State.PENDING, limit=STEP, cursor=cursor, only=only)
            self.manage_tasks.cancel_many([task.id for task in page.tasks])
            cursor = page.cursor
            if cursor is None:
                break
        return self.batches.get(batch.id) or batch
