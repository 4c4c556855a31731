"""Whether the service lives and is ready."""

from flask import Response

from api import replies
from api.endpoints import Endpoint, Reply
from api.envelope import fail, ok
from api.forms import requests
from api.services import Services
from common.errors import MatchError
from common.store.base import Health

# Both in turn are within the five seconds that probes are usually given.
READY_WITHIN_S = 2.0


def ping(_services: Services, _: requests.Nothing) -> Response:
    """Answer without asking anything else."""
    return ok()


def readyz(services: Services, _: requests.Nothing) -> Response:
    """Say whether searches can be served, and what else is wrong.

    A `warn` says what else is wrong; where searches cannot be served, the 503 has the `checks` as well. What is asked
    may be silent: the answer comes in time for those who probe, whatever is.
    """
    health = _health(services)
    queue = _queue_trouble(services)
    checks = {
        "store": {"reads": health.reads, "writes": health.writes, "detail": health.detail},
        "redis": {"ok": queue is None, "detail": queue or ""},
    }
    if not health.reads:
        return fail("not_ready", f"searches are unavailable: {health.detail}", checks=checks)
    trouble = [] if health.writes else [f"the store takes no writes: {health.detail}"]
    trouble += [f"redis: {queue}"] if queue else []
    return ok(warnings=trouble, checks=checks)


def _health(services: Services) -> Health:
    try:
        return services.vitals.store.answer(within_s=READY_WITHIN_S)
    except MatchError as error:
        return Health(reads=False, writes=False, detail=str(error))


def _queue_trouble(services: Services) -> str | None:
    try:
        services.vitals.queue.answer(within_s=READY_WITHIN_S)
    except MatchError as error:
        return str(error)
    return None


ENDPOINTS = (
    Endpoint(name="ping", path="/ping", scope=None, methods=("GET", "POST"), view=ping, limited=False),
    Endpoint(name="livez", path="/livez", scope=None, methods=("GET",), view=ping, limited=False),
    Endpoint(
        name="readyz",
        path="/readyz",
        scope=None,
        methods=("GET",),
        view=readyz,
        limited=False,
        reply=Reply(added={"checks": replies.Checks}, errors=(503,)),
    ),
)
