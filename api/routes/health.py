"""Liveness and readiness."""

from flask import Response

from api import replies
from api.endpoints import Endpoint, Reply
from api.envelope import fail, ok
from api.forms import requests
from api.services import Services
from common.errors import MatchError
from common.store.base import Health

# Two checks in sequence take less than the five seconds of usual probes.
READY_WITHIN_S = 2.0


def ping(_services: Services, _: requests.Nothing) -> Response:
    """Answer without checking anything."""
    return ok()


def readyz(services: Services, _: requests.Nothing) -> Response:
    """Check whether searches can be served.

    The status is `warn` when they can, but Redis or writes are unavailable, or the queue is paused; it is 503, also
    with `checks`, when they cannot. The reply comes within four seconds, even if the store and Redis do not answer.
    """
    health = _health(services)
    redis_error = _redis_error(services)
    is_paused = redis_error is None and _is_paused(services)
    checks = {
        "store": {"reads": health.reads, "writes": health.writes, "detail": health.detail},
        "redis": {"ok": redis_error is None, "detail": redis_error or ""},
        "queue": {"paused": is_paused},
    }
    if not health.reads:
        return fail("not_ready", f"searches are unavailable: {health.detail}", checks=checks)
    warnings = [] if health.writes else [f"the store accepts no writes: {health.detail}"]
    warnings += [f"redis: {redis_error}"] if redis_error else []
    warnings += ["the queue is paused: adds wait (POST /queue/resume)"] if is_paused else []
    return ok(warnings=warnings, checks=checks)


def _health(services: Services) -> Health:
    try:
        return services.dependency_checks.store.result(timeout_s=READY_WITHIN_S)
    except MatchError as error:
        return Health(reads=False, writes=False, detail=str(error))


def _redis_error(services: Services) -> str | None:
    try:
        services.dependency_checks.redis.result(timeout_s=READY_WITHIN_S)
    except MatchError as error:
        return str(error)
    return None


def _is_paused(services: Services) -> bool:
    try:
        return services.dependency_checks.queue_stats.result(timeout_s=READY_WITHIN_S).is_paused
    except MatchError:
        return False


ENDPOINTS = (
    Endpoint(name="ping", path="/ping", scope=None, methods=("GET", "POST"), view=ping, is_rate_limited=False),
    Endpoint(name="livez", path="/livez", scope=None, methods=("GET",), view=ping, is_rate_limited=False),
    Endpoint(
        name="readyz",
        path="/readyz",
        scope=None,
        methods=("GET",),
        view=readyz,
        is_rate_limited=False,
        reply=Reply(extra={"checks": replies.Checks}, errors=(503,)),
    ),
)
