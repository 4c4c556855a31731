"""Tasks: their states, lists, retries and cancellation."""

from collections import Counter
from typing import Annotated, Self

from flask import Response
from pydantic import BeforeValidator, Field, model_validator

from api import replies
from api.access.collections import is_allowed
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import fail, ok
from api.errors import TASK_CODES
from api.forms import requests
from api.forms.parameters import Cursor, InCollection, OneOf, Whole, cursor, text, wrong
from api.services import Services
from api.use_cases.manage_tasks import retry_within_quota
from common.queue import task_pages
from common.queue.task_json import task_json
from common.queue.task_pages import CURSOR, LISTED, Page
from common.queue.tasks import RetryRejected, State, Task

# The kind of their cursors.
TASKS = "tasks"
MAX_LISTED = 1000
# About a second's work: each task is read, reopened and published.
MAX_RETRIED = 1000


class TaskFilter(InCollection):
    """Parameters that filter the tasks of a collection, and the cursor of their list."""

    code: Annotated[
        Annotated[str, OneOf(TASK_CODES)] | None, Field(description="Only tasks that failed with this code.")
    ] = None
    filepath_prefix: Annotated[
        Annotated[str, BeforeValidator(text)] | None,
        Field(description="Only tasks whose filepath begins with this text."),
    ] = None
    cursor: Annotated[
        Annotated[str, Cursor(TASKS, CURSOR)] | None,
        Field(description="The `cursor` of the previous reply; empty at the start."),
    ] = None


class Tasks(TaskFilter):
    """A page of the tasks in one state."""

    state: Annotated[str, OneOf(tuple(LISTED)), Field(description="The state. Successful tasks are not listed.")]
    limit: Annotated[
        int, Whole(1, MAX_LISTED), Field(description="Maximum number of tasks. A page before the last may have fewer.")
    ] = 100

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.code is not None and self.state != State.FAILED:
            raise wrong("requires state=failed", field="code")
        return self


class Retry(TaskFilter):
    """The failed tasks to retry."""

    state: Annotated[str, OneOf((State.FAILED,)), Field(description="Only failed tasks can be retried.")]
    limit: Annotated[int, Whole(1, MAX_RETRIED), Field(description="Maximum number of tasks to retry.")] = 500


def task(services: Services, params: requests.Task) -> Response:
    """Return a task.

    Its `state` and `error` are the outcome of the add.
    """
    existing = _visible(services, params.id)
    if existing is None:
        return _rejected(RetryRejected.UNKNOWN)
    return ok([task_json(existing)])


def tasks(services: Services, params: Tasks) -> Response:
    """List tasks in one state, newest first.

    The `cursor` of the reply is that of the next page.
    """
    page = _page(services, params, State(params.state), params.limit)
    return ok([task_json(listed) for listed in page.tasks], cursor=_cursor(page))


def retry_task(services: Services, params: requests.Task) -> Response:
    """Retry a failed task.

    It keeps its sequence number: a newer add or deletion of its filepath still wins. A 409 has the `task` as well.
    """
    failed = _visible(services, params.id)
    if failed is None:
        return _rejected(RetryRejected.UNKNOWN)
    [rejection] = retry_within_quota([failed], services.manage_tasks, services.collections)
    existing = services.ledger.task(params.id)
    if rejection is not None or existing is None:
        return _rejected(rejection or RetryRejected.UNKNOWN, existing)
    response = ok([task_json(existing)], http_status=202)
    response.headers["Location"] = f"/tasks/{params.id}"
    return response


def retry_tasks(services: Services, params: Retry) -> Response:
    """Retry many failed tasks.

    The `cursor` of the reply continues with the tasks beyond `limit`.
    """
    page = _page(services, params, State.FAILED, params.limit)
    rejections = retry_within_quota(page.tasks, services.manage_tasks, services.collections)
    left = Counter(rejection.value for rejection in rejections if rejection is not None)
    result = {"retried": len(rejections) - left.total(), "left": dict(left)}
    return ok([result], http_status=202, cursor=_cursor(page))


def cancel_task(services: Services, params: requests.Task) -> Response:
    """Cancel a pending task.

    Cancelling a cancelled task succeeds. A 409 has the `task` as well.
    """
    if _visible(services, params.id) is None:
        return _rejected(RetryRejected.UNKNOWN)
    previous = services.manage_tasks.cancel(params.id)
    existing = services.ledger.task(params.id)
    if previous is None or existing is None:
        return _rejected(RetryRejected.UNKNOWN)
    if previous not in {State.PENDING, State.CANCELLED}:
        message = f"the task is {previous}; only a pending task can be cancelled"
        return fail("not_pending", message, field="id", task=task_json(existing))
    return ok([task_json(existing)])


def _visible(services: Services, task_id: str) -> Task | None:
    """Return the task; None if it is unknown, or the API key may not use its collection."""
    existing = services.ledger.task(task_id)
    return existing if existing is not None and is_allowed(existing.collection) else None


def _page(services: Services, params: TaskFilter, state: State, limit: int) -> Page:
    return services.task_pages.page(
        state,
        limit=limit,
        cursor=params.cursor or None,
        only=task_pages.TaskFilter(collection=params.collection, code=params.code, prefix=params.filepath_prefix or ""),
    )


def _cursor(page: Page) -> str | None:
    return None if page.cursor is None else cursor(TASKS, page.cursor)


def _rejected(reason: RetryRejected, existing: Task | None = None) -> Response:
    """Return the failed reply, with the task if it exists."""
    message = ""
    if reason is RetryRejected.NOT_FAILED and existing is not None:
        message = f"the task is {existing.state}; only a failed task can be retried"
    extra = {} if existing is None else {"task": task_json(existing)}
    return fail(reason.value, message, field="id", **extra)


ENDPOINTS = (
    Endpoint(
        name="tasks",
        path="/tasks",
        scope=Scope.READ,
        methods=("GET",),
        view=tasks,
        reply=Reply(result=replies.Task, extra={"cursor": replies.Cursor}, errors=(503,)),
        parameters=(Tasks,),
    ),
    Endpoint(
        name="retry_tasks",
        path="/tasks/retry",
        scope=Scope.ADMIN,
        methods=("POST",),
        view=retry_tasks,
        reply=Reply(result=replies.Retried, extra={"cursor": replies.Cursor}, statuses=(202,), errors=(503,)),
        parameters=(Retry,),
    ),
    Endpoint(
        name="task",
        path="/tasks/<id>",
        scope=Scope.READ,
        methods=("GET",),
        view=task,
        reply=Reply(result=replies.Task, errors=(404, 503)),
        parameters=(requests.Task,),
    ),
    Endpoint(
        name="cancel_task",
        path="/tasks/<id>",
        scope=Scope.WRITE,
        methods=("DELETE",),
        view=cancel_task,
        reply=Reply(result=replies.Task, errors=(404, 409, 503)),
        parameters=(requests.Task,),
    ),
    Endpoint(
        name="retry_task",
        path="/tasks/<id>/retry",
        scope=Scope.WRITE,
        methods=("POST",),
        view=retry_task,
        reply=Reply(result=replies.Task, statuses=(202,), errors=(404, 409, 503)),
        parameters=(requests.Task,),
    ),
)
