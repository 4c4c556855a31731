"""The JSON of a task, in responses and in callbacks."""

from typing import Any

from common.queue.callbacks import Callback
from common.queue.tasks import Task
from common.times import iso
from common.warning_codes import warning_text


def task_json(task: Task) -> dict[str, Any]:
    """Return the JSON of a task; times are ISO 8601 in UTC."""
    error = {"code": task.code, "message": task.error} if task.code else None
    cause = {"code": task.cause[0], "message": task.cause[1]} if task.cause else None
    warning = {"code": task.warning, "message": warning_text(task.warning)} if task.warning else None
    fields = {
        "id": task.id,
        "state": task.state,
        "action": task.action,
        "collection": task.collection,
        "batch": task.batch,
        "filepath": task.filepath or None,
        "error": error,
        "warning": warning,
        "attempts": task.attempts,
        "next_try": iso(task.next_try),
        "cause": cause,
        "accepted": iso(task.accepted),
        "started": iso(task.started),
        "finished": iso(task.finished),
        "request_id": task.request_id,
    }
    return fields if task.callback is None else fields | {"callback": callback_json(task.callback)}


def callback_json(callback: Callback) -> dict[str, Any]:
    """Return the JSON of a callback."""
    return {
        "state": callback.state,
        "attempts": callback.attempts,
        "error": callback.error,
        "next": iso(callback.next),
    }
