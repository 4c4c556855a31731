"""Adding pictures."""

from flask import Response, request

from api import requests
from api.endpoints import Endpoint
from api.envelope import fail, ok
from api.services import Services
from api.task_routes import task_json
from common.errors import MatchError, StoreError
from common.ledger import State, Task

# The codes of failures that no other picture would have prevented.
OUR_FAULTS = {"internal_error", StoreError.code}


def add(services: Services, given: requests.Add) -> Response:
    """Accept a picture to be stored; with `wait`, answer when it is."""
    wait_s = given.wait or _preferred_wait(services)
    accepted = services.intake.accept(given.filepath, given.source, given.metadata)
    ended = _wait(services, accepted, wait_s) if wait_s else accepted
    response = _outcome(services, ended, given.source.field)
    response.headers["Location"] = f"/tasks/{ended.id}"
    return response


def _preferred_wait(services: Services) -> float:
    """Return the seconds of `Prefer: wait=N`, as far as we grant them; a preference is never an error (RFC 7240)."""
    for preference in request.headers.get("Prefer", "").split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait" and value.strip().isdecimal():
            return min(float(value), services.settings.max_wait_s)
    return 0.0


def _wait(services: Services, accepted: Task, wait_s: float) -> Task:
    """Return the task when it has ended, or as it is when the time or our room for waiting ran out."""
    try:
        with services.waiting.passage():
            return services.waiters.wait(accepted.id, timeout_s=wait_s) or accepted
    except MatchError:
        # It is accepted whatever becomes of the waiting: its sender gets the 202 that says so.
        return accepted


def _outcome(services: Services, task: Task, field: str) -> Response:
    if task.state is State.FAILED:
        ours = task.code in OUR_FAULTS
        where = None if ours else field
        return fail(500 if ours else 422, task.error or "", code=task.code or "", field=where, task=task_json(task))
    if task.state is State.SUCCEEDED:
        # Stored, but whether a search finds it already cannot be said while the store does not answer.
        return ok(http_status=200 if _refreshed(services) else 202, task=task_json(task))
    if task.state in {State.SUPERSEDED, State.CANCELLED}:
        return ok(warnings=[f"the task was {task.state}"], task=task_json(task))
    return ok(http_status=202, task=task_json(task))


def _refreshed(services: Services) -> bool:
    try:
        services.store.refresh()
    except StoreError:
        return False
    return True


ENDPOINTS = (Endpoint(name="add", path="/add", methods=("POST",), view=add, takes=(requests.Add,), pictures=1),)
