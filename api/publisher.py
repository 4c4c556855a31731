"""Sends accepted tasks to the queue; the only file of the API that knows Celery."""

import logging
from collections import deque
from collections.abc import Sequence

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from common.broker import QUEUE_SETTINGS, TRANSPORT_OPTIONS
from common.jobs import ADD_TASK, SENT_HEADER
from common.ledger import Task

log = logging.getLogger(__name__)


class Publisher:
    """Sends by name: the API needs no worker's code."""

    def __init__(self, broker_url: str) -> None:
        self._app = Celery("match", broker=broker_url, set_as_current=False)
        self._app.conf.update(QUEUE_SETTINGS)
        # A sender waits for no broker: what cannot be sent at once is sent by the sweeper.
        self._app.conf.broker_transport_options = TRANSPORT_OPTIONS | {"max_retries": 1, "interval_start": 0.1}

    def send(self, tasks: Sequence[Task], *, queue: str) -> None:
        """Send a message a task; never raises.

        A task that cannot be sent now is no error: it stands in the ledger, and the sweeper sends it later.
        """
        left = deque(tasks)
        try:
            try:
                self._send_all(left, queue)
            except OperationalError:
                # A connection that had died unnoticed; should this send something twice, the repeat changes nothing.
                self._send_all(left, queue)
        except OperationalError as error:
            log.warning("%d tasks are not sent yet: %s", len(left), error)
        except Exception:
            # The tasks are accepted already: whatever is wrong here, their sender must not hear that they are not.
            log.exception("%d tasks are not sent yet", len(left))

    def _send_all(self, left: deque[Task], queue: str) -> None:
        with self._app.producer_pool.acquire(block=True) as producer:
            while left:
                self._send(producer, left[0], queue)
                left.popleft()

    def _send(self, producer: Producer, task: Task, queue: str) -> None:
        self._app.send_task(
            ADD_TASK,
            args=(task.id,),
            queue=queue,
            headers={SENT_HEADER: task.accepted},
            producer=producer,
            retry=False,
            # Said here, because Celery takes long to find out: what flower shows, and that Redis needs no queues made.
            argsrepr=f"('{task.id}',)",
            kwargsrepr="{}",
            declare=(),
        )

    def close(self) -> None:
        """Give back the connections."""
        self._app.close()
