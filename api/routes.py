"""One function an endpoint: parse, call, reply."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time_ns
from typing import Any

from flask import Flask, Response, request

from api.envelope import fail, ok
from api.forms import Form
from api.gate import Gate
from api.intake import Intake
from api.pictures import Pictures
from api.waiting import Waiters
from common.config import Settings
from common.errors import MatchError, StoreError, StoreUnavailable
from common.ledger import Ledger, State, Task
from common.search import search
from common.store.base import Store, Tombstone, Verdict
from common.times import iso

LIST_LIMIT = 10_000
LIST_OFFSET_LIMIT = 2**53
SEARCH_LIMIT = 1000
SEARCH_OFFSET_LIMIT = 9000
# What a form needs beside its pictures.
FORM_BYTES = 256 * 1024
# The codes of failures that no other picture would have prevented.
OUR_FAULTS = {"internal_error", StoreError.code}


@dataclass(frozen=True, slots=True)
class Services:
    """What the endpoints need."""

    settings: Settings
    store: Store
    ledger: Ledger
    intake: Intake
    pictures: Pictures
    waiters: Waiters
    searching: Gate
    waiting: Gate


def register(app: Flask, services: Services) -> None:
    """Bind every endpoint of the contract to its function."""

    def bind(
        name: str, view: Callable[..., Response], methods: list[str], *, path: str = "", pictures: int = 0
    ) -> None:
        # Twice the size of a picture: one that is too large is still read so far that its parameter can be named.
        body_bytes = FORM_BYTES + 2 * pictures * services.settings.max_image_bytes

        def endpoint(**arguments: str) -> Response:
            request.max_content_length = body_bytes
            return view(services, **arguments)

        app.add_url_rule(path or f"/{name}", endpoint=name, view_func=endpoint, methods=methods)

    bind("add", add, ["POST"], pictures=1)
    bind("delete", delete, ["DELETE"])
    bind("search", search_, ["POST"], pictures=1)
    bind("compare", compare, ["POST"], pictures=2)
    bind("count", count, ["GET", "POST"])
    bind("list", list_, ["GET", "POST"])
    bind("ping", ping, ["GET", "POST"])
    bind("task", task, ["GET"], path="/tasks/<task_id>")
    bind("livez", ping, ["GET"])
    bind("readyz", readyz, ["GET"])


def add(services: Services) -> Response:
    """Accept a picture to be stored; with `wait`, answer when it is."""
    form = _form(services, "url", "image", "filepath", "metadata", "wait")
    wait_s = form.number("wait", low=0, high=services.settings.max_wait_s) or _preferred_wait(services)
    filepath, metadata, source = form.filepath(), form.metadata(), form.source()
    accepted = services.intake.accept(filepath, source, metadata)
    ended = _wait(services, accepted, wait_s) if wait_s else accepted
    response = _outcome(services, ended, source.field)
    response.headers["Location"] = f"/tasks/{ended.id}"
    return response


def delete(services: Services) -> Response:
    """Delete exactly this filepath; older requests for it, whenever they arrive, change nothing any more."""
    filepath = _form(services, "filepath").filepath()
    tombstone = Tombstone(filepath=filepath, seq=services.ledger.take_seq(), added=time_ns() // 1_000_000)
    [written] = services.store.put([tombstone])
    if written.verdict is Verdict.HELD:
        raise StoreUnavailable(f"the store cannot delete now: {written.reason}")
    if written.verdict is Verdict.REFUSED:
        raise StoreError(written.reason)
    return ok()


def search_(services: Services) -> Response:
    """Find what looks like the picture."""
    form = _form(services, "url", "image", "all_orientations", "limit", "offset", "min_score")
    options: dict[str, Any] = {
        "all_orientations": form.boolean("all_orientations", default=services.settings.all_orientations),
        "limit": form.whole("limit", default=100, low=1, high=SEARCH_LIMIT),
        "offset": form.whole("offset", default=0, low=0, high=SEARCH_OFFSET_LIMIT),
        "min_score": form.number("min_score", low=0, high=100),
    }
    source = form.source()
    with services.searching.passage():
        matches = search(services.pictures.signature(source), services.store, **options)
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


def compare(services: Services) -> Response:
    """Score how alike two pictures are."""
    form = _form(services, "url1", "image1", "url2", "image2")
    first, second = form.source("1"), form.source("2")
    with services.searching.passage():
        return ok([{"score": services.pictures.compare(first, second)}])


def count(services: Services) -> Response:
    """Count the stored pictures."""
    _form(services)
    return ok([services.store.count()])


def list_(services: Services) -> Response:
    """List filepaths in the order of the requests that stored them."""
    form = _form(services, "offset", "limit")
    offset = form.whole("offset", default=0, low=0, high=LIST_OFFSET_LIMIT)
    limit = form.whole("limit", default=20, low=1, high=LIST_LIMIT)
    return ok(services.store.filepaths(offset=offset, limit=limit))


def ping(services: Services) -> Response:
    """Answer without asking anything else."""
    _form(services)
    return ok()


def task(services: Services, task_id: str) -> Response:
    """Tell what became of accepted work."""
    _form(services)
    found = services.ledger.task(task_id)
    if found is None:
        return fail(404, "there is no such task, or it was forgotten", code="unknown_task", field="id")
    return ok([task_json(found)])


def readyz(services: Services) -> Response:
    """Say whether searches can be served, and what else is wrong."""
    _form(services)
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


def _form(services: Services, *known: str) -> Form:
    return Form.read(request, *known, max_image_bytes=services.settings.max_image_bytes)


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
