"""The queue's tasks: decode the message, do the work, acknowledge it or give it back."""

import logging
from collections.abc import Callable, Sequence
from time import sleep

from celery import Celery
from celery.exceptions import Reject

from common.errors import QueueError, StoreUnavailable
from common.queue.jobs import ADD_MANY_TASK, ADD_TASK
from workers.chunks import Chunks
from workers.pipeline import Pipeline

log = logging.getLogger(__name__)

# What cannot be reached now cannot be reached at once either: a message that comes straight back must not spin.
PAUSE_S = 1.0


def register(app: Celery, pipeline: Callable[[], Pipeline], chunks: Callable[[], Chunks]) -> None:
    """Make the tasks known to `app`; the parts are asked for at each run, because they open after the start."""

    @app.task(name=ADD_TASK)  # type: ignore[untyped-decorator]  # Celery has no types
    def add(task_id: str) -> None:
        try:
            pipeline().run(task_id)
        except (StoreUnavailable, QueueError) as error:
            sleep(PAUSE_S)
            raise Reject(str(error), requeue=True) from error

    @app.task(name=ADD_MANY_TASK)  # type: ignore[untyped-decorator]
    def add_many(task_ids: Sequence[str], at: int) -> None:
        try:
            chunks().run(task_ids, at=at)
        except Exception as error:
            log.warning("a message of %d tasks comes again: %s", len(task_ids), error)
            sleep(PAUSE_S)
            raise Reject(str(error), requeue=True) from error
