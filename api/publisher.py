"""Sends accepted tasks to the queue; the only file of the API that knows Celery."""

import logging
from collections.abc import Sequence

from celery import Celery
from kombu.exceptions import OperationalError

from common.broker import QUEUE_SETTINGS
from common.jobs import ADD_TASK, SENT_HEADER
from common.ledger import Task

log = logging.getLogger(__name__)


class Publisher:
    """Sends by name: the API needs no worker's code."""

    def __init__(self, broker_url: str) -> None:
        self._app = Celery("match", broker=broker_url, set_as_current=False)
        self._app.conf.update(QUEUE_SETTINGS)

    def send(self, tasks: Sequence[Task], *, queue: str) -> None:
        """Send a message a task.

        A task that cannot be sent now is no error: it stands in the ledger, and the sweeper sends it later.
        """
        with self._app.producer_pool.acquire(block=True) as producer:
            for task in tasks:
                try:
                    self._app.send_task(
                        ADD_TASK,
                        args=(task.id,),
                        queue=queue,
                        headers={SENT_HEADER: task.accepted},
                        producer=producer,
                        retry=False,
                    )
                except OperationalError as error:
                    log.warning("task %s is not sent yet: %s", task.id, error)

    def close(self) -> None:
        """Give back the connections."""
        self._app.close()
