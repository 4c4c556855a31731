"""The queue: its state, and the pause of all workers."""

from dataclasses import replace
from typing import Any

from flask import Response

from api import replies
from api.access.authorization import check_all_collections
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok
from api.forms import requests
from api.services import Services
from common.queue.stats import QueueStats

# A check of Redis takes milliseconds; a reply waits this long for one that does not answer.
ANSWER_WITHIN_S = 2.0


def queue(services: Services, _: requests.Nothing) -> Response:
    """Return the state of the queue, over all collections.

    A key that is limited to some collections may not read it.
    """
    check_all_collections()
    return ok([queue_json(_stats(services))])


def pause_queue(services: Services, _: requests.Nothing) -> Response:
    """Pause the queue.

    Within seconds no worker begins a task any more; running ones end. Adds are still accepted, and wait. The pause
    survives restarts of every process, until the queue is resumed. A key that is limited to some collections may not
    pause the work of all.
    """
    check_all_collections()
    services.pause.set()
    return ok([queue_json(replace(_stats(services), is_paused=True))])


def resume_queue(services: Services, _: requests.Nothing) -> Response:
    """Resume the queue. A key that is limited to some collections may not."""
    check_all_collections()
    services.pause.clear()
    return ok([queue_json(replace(_stats(services), is_paused=False))])


def queue_json(stats: QueueStats) -> dict[str, Any]:
    """Return the state of the queue as in a reply."""
    return {
        "waiting": stats.waiting,
        "running": stats.in_flight,
        "failed": stats.failed,
        "oldest_age_s": round(stats.oldest_age_s, 1),
        "rate_per_s": round(stats.rate_per_s, 2),
        "workers": stats.workers,
        "paused": stats.is_paused,
    }


def _stats(services: Services) -> QueueStats:
    return services.dependency_checks.queue_stats.result(timeout_s=ANSWER_WITHIN_S)


_REPLY = Reply(result=replies.QueueState, errors=(503,))

ENDPOINTS = (
    Endpoint(name="queue", path="/queue", scope=Scope.READ, methods=("GET",), view=queue, reply=_REPLY),
    Endpoint(
        name="pause_queue", path="/queue/pause", scope=Scope.ADMIN, methods=("POST",), view=pause_queue, reply=_REPLY
    ),
    Endpoint(
        name="resume_queue", path="/queue/resume", scope=Scope.ADMIN, methods=("POST",), view=resume_queue, reply=_REPLY
    ),
)
