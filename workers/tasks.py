"""The queue's tasks: decode the message, do the work, acknowledge it or give it back."""

from collections.abc import Callable
from time import sleep

from celery import Celery
from celery.exceptions import Reject

from common.errors import QueueError, StoreUnavailable
from common.jobs import ADD_TASK
from workers.pipeline import Pipeline

# What cannot be reached now cannot be reached at once either: a message that comes straight back must not spin.
PAUSE_S = 1.0


def register(app: Celery, pipeline: Callable[[], Pipeline]) -> None:
    """Make the tasks known to `app`; `pipeline` is asked for at each run, because it opens after the start."""

    @app.task(name=ADD_TASK)  # type: ignore[untyped-decorator]  # Celery has no types
    def add(task_id: str) -> None:
        try:
            pipeline().run(task_id)
        except (StoreUnavailable, QueueError) as error:
            sleep(PAUSE_S)
            raise Reject(str(error), requeue=True) from error
