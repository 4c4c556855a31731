"""The publisher: sends accepted tasks to the queue. The only module of the API that imports Celery."""

import logging
from collections import deque
from collections.abc import Sequence
from itertools import groupby

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from common.queue.broker import queue_settings
from common.queue.jobs import ADD_MANY_TASK, ADD_TASK, BATCH_QUEUE, CHUNK, SENT_HEADER
from common.queue.tasks import QueuedTask, Task

log = logging.getLogger(__name__)


class Publisher:
    """Sends Celery messages by the names of tasks, without the code of the workers."""

    def __init__(self, broker_url: str) -> None:
        self._app = Celery("match", set_as_current=False)
        self._app.conf.update(queue_settings(broker_url))
        # A request does not wait for an unavailable broker: the sweeper sends later what cannot be sent now.
        options = self._app.conf.broker_transport_options
        self._app.conf.broker_transport_options = options | {"max_retries": 1, "interval_start": 0.1}

    def send(self, tasks: Sequence[Task], *, queue: str) -> None:
        """Send new tasks to the queue; never raises.

        A task that cannot be sent now is not an error: it is in the ledger, and the sweeper sends it later.
        """
        self.send_again([QueuedTask(task_id=task.id, queue=queue, enqueued_at=task.accepted) for task in tasks])

    def send_again(self, tasks: Sequence[QueuedTask]) -> None:
        """Send open tasks, each to its own queue; never raises, like `send`."""
        pending = deque(chunks(tasks))
        try:
            try:
                self._send_all(pending)
            except OperationalError:
                # The connection may have been closed without notice. A message that is sent twice changes nothing.
                self._send_all(pending)
        except OperationalError as error:
            log.warning("%d messages are not sent yet: %s", len(pending), error)
        except Exception:
            # The tasks are accepted already, so an error here must not become the reply to their request.
            log.exception("%d messages are not sent yet", len(pending))

    def _send_all(self, pending: deque[list[QueuedTask]]) -> None:
        with self._app.producer_pool.acquire(block=True) as producer:
            while pending:
                self._send(producer, pending[0])
                pending.popleft()

    def _send(self, producer: Producer, tasks: Sequence[QueuedTask]) -> None:
        first = tasks[0]
        sent = min(task.enqueued_at for task in tasks)
        many = len(tasks) > 1
        self._app.send_task(
            ADD_MANY_TASK if many else ADD_TASK,
            args=([task.task_id for task in tasks], sent) if many else (first.task_id,),
            queue=first.queue,
            headers={SENT_HEADER: sent},
            producer=producer,
            retry=False,
            # Celery takes long to compute these: the arguments that flower shows, and the queues to declare, none of
            # which Redis needs.
            argsrepr=f"('{first.task_id}', and {len(tasks) - 1} more)" if many else f"('{first.task_id}',)",
            kwargsrepr="{}",
            declare=(),
        )

    def close(self) -> None:
        """Close the connections."""
        self._app.close()


def chunks(tasks: Sequence[QueuedTask]) -> list[list[QueuedTask]]:
    """Return the tasks in order, grouped by message: up to CHUNK neighbours in the batch queue, single tasks in others.

    A message costs as much as a signature, and no client waits for a single image of a batch.
    """
    by_message = []
    for queue, group in groupby(tasks, key=lambda task: task.queue):
        neighbours, size = list(group), CHUNK if queue == BATCH_QUEUE else 1
        by_message += [neighbours[start : start + size] for start in range(0, len(neighbours), size)]
    return by_message
