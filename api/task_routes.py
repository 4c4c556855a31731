"""What became of accepted work."""

from typing import Any

from flask import Response

from api import requests
from api.endpoints import Endpoint
from api.envelope import fail, ok
from api.services import Services
from common.ledger import Task
from common.times import iso


def task(services: Services, given: requests.Task) -> Response:
    """Tell what became of accepted work."""
    found = services.ledger.task(given.id)
    if found is None:
        return fail(404, "there is no such task, or it was forgotten", code="unknown_task", field="id")
    return ok([task_json(found)])


def task_json(task: Task) -> dict[str, Any]:
    """Return the task as clients read it; times are ISO 8601 in UTC."""
    error = {"code": task.code, "message": task.error} if task.code else None
    return {
        "id": task.id,
        "state": task.state,
        "filepath": task.filepath,
        "error": error,
        "attempts": task.attempts,
        "accepted": iso(task.accepted),
        "started": iso(task.started),
        "finished": iso(task.finished),
    }


ENDPOINTS = (Endpoint(name="task", path="/tasks/<id>", methods=("GET",), view=task, takes=(requests.Task,)),)
