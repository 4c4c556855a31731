"""One function an endpoint: parse, call, reply."""

from time import time_ns
from typing import Any

from flask import Response, request

from api import requests
from api.endpoints import Endpoint
from api.envelope import fail, ok
from api.services import Services
from common.errors import MatchError, StoreError, StoreUnavailable
from common.ledger import State, Task
from common.search import search
from common.store.base import Tombstone, Verdict
from common.times import iso

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


def delete(services: Services, given: requests.Delete) -> Response:
    """Delete exactly this filepath; older requests for it, whenever they arrive, change nothing any more."""
    tombstone = Tombstone(filepath=given.filepath, seq=services.ledger.take_seq(), added=time_ns() // 1_000_000)
    [written] = services.store.put([tombstone])
    if written.verdict is Verdict.HELD:
        raise StoreUnavailable(f"the store cannot delete now: {written.reason}")
    if written.verdict is Verdict.REFUSED:
        raise StoreError(written.reason)
    return ok()


def search_(services: Services, given: requests.Search) -> Response:
    """Find what looks like the picture."""
    turned = given.all_orientations
    with services.searching.passage():
        matches = search(
            services.pictures.signature(given.source),
            services.store,
            all_orientations=services.settings.all_orientations if turned is None else turned,
            limit=given.limit,
            offset=given.offset,
            min_score=given.min_score,
        )
    return ok(
        [
            {
                "score": match.score,
                "filepath": match.filepath,
                "metadata": match.metadata,
                "orientation": match.orientation,
            }
            for match in matches
        ]
    )


def compare(services: Services, given: requests.Compare) -> Response:
    """Score how alike two pictures are."""
    with services.searching.passage():
        return ok([{"score": services.pictures.compare(*given.pair)}])


def count(services: Services, _: requests.Nothing) -> Response:
    """Count the stored pictures."""
    return ok([services.store.count()])


def list_(services: Services, given: requests.List) -> Response:
    """List filepaths in the order of the requests that stored them."""
    return ok(services.store.filepaths(offset=given.offset, limit=given.limit))


def ping(_services: Services, _: requests.Nothing) -> Response:
    """Answer without asking anything else."""
    return ok()


def task(services: Services, given: requests.Task) -> Response:
    """Tell what became of accepted work."""
    found = services.ledger.task(given.id)
    if found is None:
        return fail(404, "there is no such task, or it was forgotten", code="unknown_task", field="id")
    return ok([task_json(found)])


def readyz(services: Services, _: requests.Nothing) -> Response:
    """Say whether searches can be served, and what else is wrong."""
    health = services.store.health()
    queue = _queue_trouble(services)
    checks = {
        "store": {"reads": health.reads, "writes": health.writes, "detail": health.detail},
        "redis": {"ok": queue is None, "detail": queue or ""},
    }
    if not health.reads:
        return fail(503, f"the store does not serve: {health.detail}", code="not_ready", checks=checks)
    trouble = [f"redis: {queue}"] if queue else []
    return ok(warnings=trouble, checks=checks)


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


def _queue_trouble(services: Services) -> str | None:
    try:
        services.ledger.check()
    except MatchError as error:
        return str(error)
    return None


ENDPOINTS = (
    Endpoint(name="add", path="/add", methods=("POST",), view=add, takes=(requests.Add,), pictures=1),
    Endpoint(name="delete", path="/delete", methods=("DELETE",), view=delete, takes=(requests.Delete,)),
    Endpoint(name="search", path="/search", methods=("POST",), view=search_, takes=(requests.Search,), pictures=1),
    Endpoint(name="compare", path="/compare", methods=("POST",), view=compare, takes=(requests.Compare,), pictures=2),
    Endpoint(name="count", path="/count", methods=("GET", "POST"), view=count),
    Endpoint(name="list", path="/list", methods=("GET", "POST"), view=list_, takes=(requests.List,)),
    Endpoint(name="ping", path="/ping", methods=("GET", "POST"), view=ping),
    Endpoint(name="task", path="/tasks/<id>", methods=("GET",), view=task, takes=(requests.Task,)),
    Endpoint(name="livez", path="/livez", methods=("GET",), view=ping),
    Endpoint(name="readyz", path="/readyz", methods=("GET",), view=readyz),
)
