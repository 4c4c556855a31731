"""Tasks: their states, lists, retries and cancellation."""

from collections import Counter
from dataclasses import replace
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
from api.forms.parameters import BatchId, Cursor, InCollection, Indexed, OneOf, Whole, cursor, text, wrong
from api.routes.batches import UnknownBatch, visible_batch
from api.services import Services
from api.use_cases.manage_tasks import retry_within_quota
from common.queue import task_pages
from common.queue.task_json import task_json
from common.queue.task_pages import CURSOR, LISTED, Page
from common.queue.tasks import RetryRejected, State, Task

# The kind of their cursors.
TASKS = "tasks"
MAX_LISTED = 1000
# With their names they fit into a URL.
MAX_IDS = 100
# About a second's work: each task is read, reopened and published.
MAX_RETRIED = 1000


class TaskFilter(InCollection):
    """Parameters that filter the tasks of a collection, and the cursor of their list."""

    batch: Annotated[
        BatchId | None, Field(description="Only tasks of the batch with this id, in the collection of the batch.")
    ] = None
    request_id: Annotated[
        Annotated[str, BeforeValidator(text)] | None,
        Field(description="Only tasks of the request with this `X-Request-ID`.", json_schema_extra={"minLength": 1}),
    ] = None

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
    """A page of the tasks in one state, or of the tasks of a batch or a request in all states."""

    state: Annotated[
        Annotated[str, OneOf(LISTED)] | None,
        Field(
            description="The state. Required without `batch`, `ids` and `request_id`; with one of them, tasks in all "
            "states are listed by default, one state after another."
        ),
    ] = None
    ids: Annotated[
        dict[int, Annotated[str, BeforeValidator(text)]],
        Indexed(MAX_IDS),
        Field(
            description="Only the tasks with these ids, in this order, without those that are unknown. They may be in "
            "any collection that the API key may use, if none is named."
        ),
    ] = Field(default_factory=dict)
    limit: Annotated[
        int, Whole(1, MAX_LISTED), Field(description="Maximum number of tasks. A page before the last may have fewer.")
    ] = 100

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.state is None and not (self.batch or self.ids or self.request_id):
            raise wrong("is required", field="state", code="missing_parameter")
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
    """List tasks in one state, newest first, or those of a batch or a request.

    The `cursor` of the reply is that of the next page. Tasks are listed as long as they are kept: failed ones for
    `MATCH_FAILED_KEEP_S`, others that ended for `MATCH_FINISHED_KEEP_S`.
    """
    state = None if params.state is None else State(params.state)
    if params.ids:
        return ok([task_json(listed) for listed in _by_ids(services, params, state)], cursor=None)
    page = _page(services, params, state, params.limit)
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


def _by_ids(services: Services, params: Tasks, state: State | None) -> list[Task]:
    existing = services.ledger.tasks(list(dict.fromkeys(params.ids.values())))
    only = _filter(services, params)
    if "collection" not in params.model_fields_set and params.batch is None:
        only = replace(only, collection=None)
    return [
        task for task in existing if is_allowed(task.collection) and state in {None, task.state} and only.matches(task)
    ]


def _page(services: Services, params: TaskFilter, state: State | None, limit: int) -> Page:
    return services.task_pages.page(
        state,
        limit=limit,
        cursor=params.cursor or None,
        only=_filter(services, params),
    )


def _filter(services: Services, params: TaskFilter) -> task_pages.TaskFilter:
    """Return the filter of a list; raises UnknownBatch if its batch is unknown, or of another collection."""
    batch = None if params.batch is None else visible_batch(services, params.batch, field="batch")
    if batch is not None and "collection" in params.model_fields_set and params.collection != batch.collection:
        raise UnknownBatch("batch")
    return task_pages.TaskFilter(
        collection=params.collection if batch is None else batch.collection,
        code=params.code,
        prefix=params.filepath_prefix or "",
        batch=batch,
        request_id=params.request_id or "",
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
        reply=Reply(result=replies.Task, extra={"cursor": replies.Cursor}, errors=(404, 503)),
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
