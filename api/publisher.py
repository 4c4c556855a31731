"""Sends accepted tasks to the queue; the only file of the API that knows Celery."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from common.queue.broker import queue_settings
from common.queue.jobs import ADD_MANY_TASK, ADD_TASK, BATCH_QUEUE, CHUNK, ENQUEUED_AT_HEADER
from common.queue.tasks import QueuedTask, Task

log = logging.getLogger(__name__)


class Publisher:
    """Sends by name: the API needs no worker's code."""

    def __init__(self, broker_url: str) -> None:
        self._app = Celery("match", set_as_current=False)
        self._app.conf.update(queue_settings(broker_url))
        # A sender waits for no broker: what cannot be sent at once is sent by the sweeper.
        options = self._app.conf.broker_transport_options
        self._app.conf.broker_transport_options = options | {"max_retries": 1, "interval_start": 0.1}

    def send(self, tasks: Sequence[Task], *, queue: str) -> None:
        """Send messages for these tasks, one each, or many in one to the queue of batches; never raises.

        A task that cannot be sent now is no error: it stands in the ledger, and the sweeper sends it later.
        """
        self.send_again([QueuedTask(task_id=task.id, queue=queue, enqueued_at=task.accepted) for task in tasks])

    def send_again(self, tasks: Sequence[QueuedTask]) -> None:
        """Send these tasks, each to its own queue; never raises, as `send`."""
        left = deque(together(tasks))
        try:
            try:
                self._send_all(left)
            except OperationalError:
                # A connection that had died unnoticed; should this send something twice, the repeat changes nothing.
                self._send_all(left)
        except OperationalError as error:
            log.warning("%d messages are not sent yet: %s", len(left), error)
        except Exception:
            # The tasks are accepted already: whatever is wrong here, their sender must not hear that they are not.
            log.exception("%d messages are not sent yet", len(left))

    def _send_all(self, left: deque[list[QueuedTask]]) -> None:
        with self._app.producer_pool.acquire(block=True) as producer:
            while left:
                self._send(producer, left[0])
                left.popleft()

    def _send(self, producer: Producer, tasks: Sequence[QueuedTask]) -> None:
        first = tasks[0]
        sent = min(task.enqueued_at for task in tasks)
        many = len(tasks) > 1
        self._app.send_task(
            ADD_MANY_TASK if many else ADD_TASK,
            args=([task.task_id for task in tasks], sent) if many else (first.task_id,),
            queue=first.queue,
            headers={ENQUEUED_AT_HEADER: sent},
            producer=producer,
            retry=False,
            # Said here, because Celery takes long to find out: what flower shows, and that Redis needs no queues made.
            argsrepr=f"('{first.task_id}', and {len(tasks) - 1} more)" if many else f"('{first.task_id}',)",
            kwargsrepr="{}",
            declare=(),
        )

    def close(self) -> None:
        """Give back the connections."""
        self._app.close()


def together(tasks: Sequence[QueuedTask]) -> list[list[QueuedTask]]:
    """Return what travels in a message each: neighbours in the queue of batches, up to CHUNK of them.

    Nobody waits for a single picture of a batch; a message of its own would cost as much as its signature.
    """
    return [
        chunk
        for queue, neighbours in groupby(tasks, key=lambda task: task.queue)
        for chunk in _in_parts(neighbours, CHUNK if queue == BATCH_QUEUE else 1)
    ]


def _in_parts(tasks: Iterable[QueuedTask], most: int) -> Iterator[list[QueuedTask]]:
    """Yield the tasks in order, up to `most` at once."""
    left = iter(tasks)
    while chunk := list(islice(left, most)):
        yield chunk
