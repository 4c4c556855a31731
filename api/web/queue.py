"""The queue page: the tasks that wait and run, the newest batches, and the failed tasks with their reasons."""

from collections import Counter

from flask import Response

from api.access.collections import may_use_all
from api.access.keys import Scope
from api.forms import requests
from api.forms.requests import Nothing
from api.routes import batches as batch_views
from api.routes import queue as queue_views
from api.routes import tasks as task_views
from api.services import Services
from api.web import forms
from api.web.images import address
from api.web.pages import form, readable
from api.web.rendering import page
from common.collection_names import DEFAULT_COLLECTION

# A check of Redis takes milliseconds; the page waits this long for one that does not answer.
ANSWER_WITHIN_S = 2.0
SHOWN_TASKS = 100
SHOWN_BATCHES = 10


def queue(services: Services, params: forms.Failures) -> Response:
    """Show the state of the queue, the newest batches, and a page of the failed tasks, the newest first."""
    # They count the tasks of all collections.
    stats = services.dependency_checks.queue_stats.result(timeout_s=ANSWER_WITHIN_S) if may_use_all() else None
    listed = task_views.tasks(services, params.to_tasks(limit=SHOWN_TASKS)).get_json()
    newest = batch_views.batches(services, forms.newest_batches(params, limit=SHOWN_BATCHES)).get_json()
    codes = Counter(task["error"]["code"] for task in listed["result"])
    return page(
        services,
        "queue.html",
        params=params,
        stats=stats,
        batches=newest["result"],
        tasks=listed["result"],
        cursor=listed["cursor"],
        codes=codes.most_common(),
    )


def retry_task(services: Services, params: requests.Task) -> Response:
    """Retry one task, and show the queue; a task that cannot be retried any more is no longer listed."""
    reply = task_views.retry_task(services, params).get_json()
    [task] = reply["result"] or [reply.get("task", {})]
    return _to_queue(task.get("collection", DEFAULT_COLLECTION))


def retry(services: Services, params: forms.RetryAll) -> Response:
    """Retry the failed tasks with a code, and show the queue."""
    task_views.retry_tasks(services, params.to_retry())
    return _to_queue(params.collection)


def pause(services: Services, params: forms.Pause) -> Response:
    """Pause the queue, and show it."""
    queue_views.pause_queue(services, Nothing.model_construct())
    return _to_queue(params.collection)


def resume(services: Services, params: forms.Pause) -> Response:
    """Resume the queue, and show it."""
    queue_views.resume_queue(services, Nothing.model_construct())
    return _to_queue(params.collection)


def cancel_batch(services: Services, params: batch_views.OneBatch) -> Response:
    """Cancel the waiting tasks of a batch, and show the queue."""
    [batch] = batch_views.cancel_batch(services, params).get_json()["result"]
    return _to_queue(batch["collection"])


def retry_batch(services: Services, params: batch_views.OneBatch) -> Response:
    """Retry the failed tasks of a batch, and show the queue."""
    batch = batch_views.visible_batch(services, params.id)
    task_views.retry_tasks(services, forms.retry_of_batch(batch.id))
    return _to_queue(batch.collection)


def _to_queue(collection: str) -> Response:
    return Response(status=303, headers={"Location": address("/web/queue", collection=collection)})


ENDPOINTS = (
    readable("queue", "/web/queue", queue, forms.Failures),
    form("retry_task", "/web/queue/<id>/retry", retry_task, requests.Task, scope=Scope.WRITE),
    form("pause", "/web/queue/pause", pause, forms.Pause, scope=Scope.ADMIN),
    form("resume", "/web/queue/resume", resume, forms.Pause, scope=Scope.ADMIN),
    form("cancel_batch", "/web/batches/<id>/cancel", cancel_batch, batch_views.OneBatch, scope=Scope.WRITE),
    form("retry_batch", "/web/batches/<id>/retry", retry_batch, batch_views.OneBatch, scope=Scope.ADMIN),
    form("retry", "/web/queue/retry", retry, forms.RetryAll, scope=Scope.ADMIN),
)
