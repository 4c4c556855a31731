"""What became of accepted work; failed work again, and waiting work no more."""

from collections import Counter
from typing import Annotated, Self

from flask import Response
from pydantic import BeforeValidator, Field, model_validator

from api import replies
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import fail, ok
from api.errors import TASK_CODES
from api.forms import requests
from api.forms.parameters import Cursor, OneOf, Parameters, Whole, cursor, text, wrong
from api.services import Services
from common.queue.task_json import task_json
from common.queue.task_pages import CURSOR, LISTED, Page
from common.queue.tasks import RetryRejected, State, Task

# The kind of their cursors.
TASKS = "tasks"
LIST_LIMIT = 1000
# Each is read, opened and sent: about a second's work.
RETRY_LIMIT = 1000


class Chosen(Parameters):
    """Some of the tasks that failed."""

    code: Annotated[
        Annotated[str, OneOf(TASK_CODES)] | None,
        Field(description="Keep to those that failed with this code, as their `error` has it."),
    ] = None
    filepath_prefix: Annotated[
        Annotated[str, BeforeValidator(text)] | None, Field(description="Keep to those whose filepath starts so.")
    ] = None
    cursor: Annotated[
        Annotated[str, Cursor(TASKS, CURSOR)] | None,
        Field(description="The `cursor` of the reply before; empty at the start."),
    ] = None


class Tasks(Chosen):
    """A part of the tasks that are in one state, the newest first."""

    state: Annotated[str, OneOf(tuple(LISTED)), Field(description="The state; those that ended well are not listed.")]
    limit: Annotated[
        int, Whole(1, LIST_LIMIT), Field(description="Most tasks in the reply; there may be fewer before the end.")
    ] = 100

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.code is not None and self.state != State.FAILED:
            raise wrong("can be asked of failed tasks alone", field="code")
        return self


class Retry(Chosen):
    """Which failed tasks are to be sent again."""

    state: Annotated[str, OneOf((State.FAILED,)), Field(description="Failed ones alone can be.")]
    limit: Annotated[int, Whole(1, RETRY_LIMIT), Field(description="Most tasks that this request sends again.")] = 500


def task(services: Services, given: requests.Task) -> Response:
    """Tell what became of accepted work."""
    found = services.ledger.task(given.id)
    if found is None:
        return _refused(RetryRejected.UNKNOWN)
    return ok([task_json(found)])


def tasks(services: Services, given: Tasks) -> Response:
    """List tasks of one state, the newest first, with the cursor to go on from."""
    page = _page(services, given, State(given.state), given.limit)
    return ok([task_json(found) for found in page.tasks], cursor=_cursor(page))


def retry_task(services: Services, given: requests.Task) -> Response:
    """Send a failed task again; it keeps its place in the order of requests.

    A 409 has the `task` beside its reason.
    """
    [refusal] = services.manage_tasks.retry([given.id])
    found = services.ledger.task(given.id)
    if refusal is not None or found is None:
        return _refused(refusal or RetryRejected.UNKNOWN, found)
    response = ok([task_json(found)], http_status=202)
    response.headers["Location"] = f"/tasks/{given.id}"
    return response


def retry_tasks(services: Services, given: Retry) -> Response:
    """Send many failed tasks again; the reply's cursor goes on to those that this request did not come to."""
    page = _page(services, given, State.FAILED, given.limit)
    refusals = services.manage_tasks.retry([found.id for found in page.tasks])
    left = Counter(refusal.value for refusal in refusals if refusal is not None)
    result = {"retried": len(refusals) - left.total(), "left": dict(left)}
    return ok([result], http_status=202, cursor=_cursor(page))


def cancel_task(services: Services, given: requests.Task) -> Response:
    """Cancel a task that nobody works on yet.

    One that was cancelled before is cancelled all the same. A 409 has the `task` beside its reason.
    """
    was = services.manage_tasks.cancel(given.id)
    found = services.ledger.task(given.id)
    if was is None or found is None:
        return _refused(RetryRejected.UNKNOWN)
    # Asked for twice, it is cancelled all the same.
    if was not in {State.PENDING, State.CANCELLED}:
        return fail(
            "not_pending", f"the task is {was}; only a pending task can be cancelled", field="id", task=task_json(found)
        )
    return ok([task_json(found)])


def _page(services: Services, given: Chosen, state: State, limit: int) -> Page:
    return services.task_pages.page(
        state, limit=limit, cursor=given.cursor or None, code=given.code, prefix=given.filepath_prefix or ""
    )


def _cursor(page: Page) -> str | None:
    return None if page.cursor is None else cursor(TASKS, page.cursor)


def _refused(refusal: RetryRejected, found: Task | None = None) -> Response:
    """Return why a task stays as it is, and the task where there is one."""
    known = {} if found is None else {"task": task_json(found)}
    message = ""
    if refusal is RetryRejected.NOT_FAILED and found is not None:
        message = f"the task is {found.state}; only a failed task can be retried"
    return fail(refusal.value, message, field="id", **known)


ENDPOINTS = (
    Endpoint(
        name="tasks",
        path="/tasks",
        scope=Scope.READ,
        methods=("GET",),
        view=tasks,
        reply=Reply(result=replies.Task, added={"cursor": replies.Cursor}, errors=(503,)),
        takes=(Tasks,),
    ),
    Endpoint(
        name="retry_tasks",
        path="/tasks/retry",
        scope=Scope.ADMIN,
        methods=("POST",),
        view=retry_tasks,
        reply=Reply(result=replies.Retried, added={"cursor": replies.Cursor}, statuses=(202,), errors=(503,)),
        takes=(Retry,),
    ),
    Endpoint(
        name="task",
        path="/tasks/<id>",
        scope=Scope.READ,
        methods=("GET",),
        view=task,
        reply=Reply(result=replies.Task, errors=(404, 503)),
        takes=(requests.Task,),
    ),
    Endpoint(
        name="cancel_task",
        path="/tasks/<id>",
        scope=Scope.WRITE,
        methods=("DELETE",),
        view=cancel_task,
        reply=Reply(result=replies.Task, errors=(404, 409, 503)),
        takes=(requests.Task,),
    ),
    Endpoint(
        name="retry_task",
        path="/tasks/<id>/retry",
        scope=Scope.WRITE,
        methods=("POST",),
        view=retry_task,
        reply=Reply(result=replies.Task, statuses=(202,), errors=(404, 409, 503)),
        takes=(requests.Task,),
    ),
)
