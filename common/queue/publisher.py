"""Publishes accepted tasks to the queue; the only module of `common` that imports Celery."""

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from common.queue.broker import queue_settings
from common.queue.grouped import Grouped
from common.queue.jobs import (
    ADD_MANY_TASK,
    ADD_TASK,
    BATCH_QUEUES,
    CHUNK,
    ENQUEUED_AT_HEADER,
    SINGLE_CHUNK,
    SINGLE_QUEUE,
)
from common.queue.tasks import QueuedTask, Task

log = logging.getLogger(__name__)


class Publisher:
    """Sends messages by the name of their Celery task: the sender imports no code of workers.

    Single adds that arrive while others are sent share the next message.
    """

    def __init__(self, broker_url: str) -> None:
        self._app = Celery("match", set_as_current=False)
        self._app.conf.update(queue_settings(broker_url))
        # A request does not wait for an unavailable broker: the sweeper enqueues its tasks later.
        options = self._app.conf.broker_transport_options
        self._app.conf.broker_transport_options = options | {"max_retries": 1, "interval_start": 0.1}
        self._send_singles = Grouped(self._send_to_single_queue, most=SINGLE_CHUNK)

    def send(self, tasks: Sequence[Task], *, queue: str) -> None:
        """Send new tasks to a queue, and return when they are sent; never raises.

        A task that cannot be sent now is in the ledger, and the sweeper enqueues it later.
        """
        sent = [(task.id, task.accepted) for task in tasks]
        if queue == SINGLE_QUEUE:
            self._send_singles(sent)
        else:
            self._publish(_messages(sent, queue))

    def send_again(self, tasks: Sequence[QueuedTask]) -> None:
        """Send reopened tasks, each to its own queue; never raises, like `send`."""
        self._publish(
            message
            for queue, group in groupby(tasks, key=lambda task: task.queue)
            for message in _messages([(task.task_id, task.enqueued_at) for task in group], queue)
        )

    def close(self) -> None:
        """Close the connections."""
        self._app.close()

    def _send_to_single_queue(self, tasks: Sequence[tuple[str, int]]) -> None:
        self._publish(_messages(tasks, SINGLE_QUEUE))

    def _publish(self, messages: Iterable[dict[str, Any]]) -> None:
        left = deque(messages)
        try:
            try:
                self._send_all(left)
            except OperationalError:
                # The pool may have had a dead connection. A message that is sent twice changes nothing.
                self._send_all(left)
        except OperationalError as error:
            log.warning("%d messages are not sent yet: %s", len(left), error)
        except Exception:
            # The tasks are accepted already, so the request must not fail.
            log.exception("%d messages are not sent yet", len(left))

    def _send_all(self, left: deque[dict[str, Any]]) -> None:
        with self._app.producer_pool.acquire(block=True) as producer:
            while left:
                self._app.send_task(**left[0], producer=producer)
                left.popleft()


def _messages(tasks: Sequence[tuple[str, int]], queue: str) -> list[dict[str, Any]]:
    """Return the arguments of `send_task` for tasks given by id and time of enqueueing.

    Tasks share messages, since a message costs about as much CPU as a signature.
    """
    size = CHUNK if queue in BATCH_QUEUES else SINGLE_CHUNK
    return [_message(tasks[start : start + size], queue) for start in range(0, len(tasks), size)]


def _message(tasks: Sequence[tuple[str, int]], queue: str) -> dict[str, Any]:
    ids = [task_id for task_id, _ in tasks]
    enqueued_at = min(at for _, at in tasks)
    many = len(ids) > 1
    return {
        "name": ADD_MANY_TASK if many else ADD_TASK,
        "args": (ids, enqueued_at) if many else (ids[0],),
        "queue": queue,
        "headers": {ENQUEUED_AT_HEADER: enqueued_at},
        "retry": False,
        # Explicit, because Celery takes long to compute these texts, which flower shows.
        "argsrepr": f"('{ids[0]}', and {len(ids) - 1} more)" if many else f"('{ids[0]}',)",
        "kwargsrepr": "{}",
        # Redis needs no declaration of queues.
        "declare": (),
    }
