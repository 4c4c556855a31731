"""The Celery tasks: decode the message, run its tasks, acknowledge or requeue it."""

import logging
from collections.abc import Callable, Sequence
from time import sleep

from celery import Celery, Task
from celery.exceptions import Reject

from common.errors import QueueError, StoreUnavailable
from common.queue.jobs import ADD_MANY_TASK, ADD_TASK
from workers.chunks import Chunks
from workers.pipeline import Pipeline

log = logging.getLogger(__name__)

# Pause before a message is requeued because the store or the queue is unavailable; without it the message would spin.
PAUSE_S = 1.0


def register(app: Celery, pipeline: Callable[[], Pipeline], chunks_of: Callable[[str], Chunks]) -> None:
    """Register the tasks with `app`; `chunks_of` returns the chunks of a queue.

    The callables are called at each run, since the worker opens their results at its start.
    """

    def add(task_id: str) -> None:
        try:
            pipeline().run(task_id)
        except (StoreUnavailable, QueueError) as error:
            sleep(PAUSE_S)
            raise Reject(str(error), requeue=True) from error

    def add_many(message: Task, task_ids: Sequence[str], at: int) -> None:
        queue = message.request.delivery_info["routing_key"]
        try:
            chunks_of(queue).run(task_ids, queue=queue, at=at)
        except Exception as error:
            log.warning("a message of %d tasks is requeued: %s", len(task_ids), error)
            sleep(PAUSE_S)
            raise Reject(str(error), requeue=True) from error

    app.task(add, name=ADD_TASK)
    app.task(add_many, name=ADD_MANY_TASK, bind=True)
