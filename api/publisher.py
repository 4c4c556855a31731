"""Sends accepted tasks to the queue; the only file of the API that knows Celery."""

import logging
from collections import deque
from collections.abc import Sequence

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from common.broker import QUEUE_SETTINGS, TRANSPORT_OPTIONS
from common.jobs import ADD_TASK, SENT_HEADER
from common.ledger import Sent, Task

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
        self.send_again([Sent(task_id=task.id, queue=queue, at=task.accepted) for task in tasks])

    def send_again(self, messages: Sequence[Sent]) -> None:
        """Send these messages, each to its own queue; never raises, as `send`."""
        left = deque(messages)
        try:
            try:
                self._send_all(left)
            except OperationalError:
                # A connection that had died unnoticed; should this send something twice, the repeat changes nothing.
                self._send_all(left)
        except OperationalError as error:
            log.warning("%d tasks are not sent yet: %s", len(left), error)
        except Exception:
            # The tasks are accepted already: whatever is wrong here, their sender must not hear that they are not.
            log.exception("%d tasks are not sent yet", len(left))

    def _send_all(self, left: deque[Sent]) -> None:
        with self._app.producer_pool.acquire(block=True) as producer:
            while left:
                self._send(producer, left[0])
                left.popleft()

    def _send(self, producer: Producer, message: Sent) -> None:
        self._app.send_task(
            ADD_TASK,
            args=(message.task_id,),
            queue=message.queue,
            headers={SENT_HEADER: message.at},
            producer=producer,
            retry=False,
            # Said here, because Celery takes long to find out: what flower shows, and that Redis needs no queues made.
            argsrepr=f"('{message.task_id}',)",
            kwargsrepr="{}",
            declare=(),
        )

    def close(self) -> None:
        """Give back the connections."""
        self._app.close()
