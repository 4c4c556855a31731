"""The envelope: the form of every JSON reply, of success and failure."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from api.access.authorization import AccessDenied
from api.errors import ERRORS, INTERNAL_STATUS, status_of
from common.errors import MatchError, Overloaded
from common.redis.client import RETRY_AFTER_S
from common.warning_codes import warning_text

# Errors that the web framework raises; any other is a malformed request.
FRAMEWORK_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a client receives it; `retry_after` is in seconds, where a retry may succeed."""

    http_status: int
    message: str
    code: str
    field: str | None = None
    retry_after: int | None = None


def reply(
    http_status: int,
    status: str,
    error: Sequence[str] = (),
    result: Sequence[Any] = (),
    *,
    retry_after: int = RETRY_AFTER_S,
    **extra: Any,  # noqa: ANN401 - JSON
) -> Response:
    """Return a reply: the four keys of every reply, and `extra` beside them.

    A 503 has `retry_after`, in seconds, as its `Retry-After`.
    """
    method = request.endpoint or request.path.strip("/").partition("/")[0]
    response = jsonify({"method": method, "status": status, "error": error, "result": result, **extra})
    response.status_code = http_status
    if http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(retry_after)
    return response


def ok(result: Sequence[Any] = (), *, http_status: int = 200, warnings: Sequence[str] = (), **extra: Any) -> Response:  # noqa: ANN401 - JSON
    """Return a successful reply."""
    return reply(http_status, "warn" if warnings else "ok", warnings, result, **extra)


def warn(code: str, result: Sequence[Any] = (), **extra: Any) -> Response:  # noqa: ANN401 - JSON
    """Return a successful reply with the warning of the code."""
    return ok(result, warnings=[warning_text(code)], code=code, **extra)


def fail(code: str, message: str = "", *, field: str | None = None, **extra: Any) -> Response:  # noqa: ANN401 - JSON
    """Return a failed reply with the status of the code, and its text where there is no message."""
    spec = ERRORS[code]
    return _fail(Failure(spec.status, message or spec.text, code, field), **extra)


def failure_of(error: MatchError) -> Failure:
    """Return the error as a client receives it; an internal error has no details."""
    status = status_of(error)
    if status == INTERNAL_STATUS:
        return Failure(INTERNAL_STATUS, ERRORS["internal_error"].text, "internal_error")
    retry_after = error.retry_after if isinstance(error, Overloaded) else RETRY_AFTER_S
    is_temporary = status == HTTPStatus.SERVICE_UNAVAILABLE
    return Failure(status, str(error), error.code, error.field, retry_after if is_temporary else None)


def fail_with(error: MatchError) -> Response:
    """Return the failed reply for one of our errors."""
    response = _fail(failure_of(error))
    if isinstance(error, AccessDenied):
        response.headers["WWW-Authenticate"] = error.challenge
    return response


def fail_with_http(error: HTTPException) -> Response:
    """Return the failed reply for an error of the web framework."""
    code = FRAMEWORK_CODES.get(error.code or 0, "bad_request")
    if not isinstance(error, MethodNotAllowed):
        return fail(code, f"not found: {request.path}; the API is described at /docs" if code == "not_found" else "")
    methods = sorted(error.valid_methods or ())
    # HEAD is implied by GET.
    accepted = " and ".join(method for method in methods if method != "HEAD")
    response = fail(code, f"{request.path} accepts {accepted}, not {request.method}")
    response.headers["Allow"] = ", ".join(methods)
    return response


def _fail(failure: Failure, **extra: Any) -> Response:  # noqa: ANN401 - JSON
    if failure.field is not None:
        extra = {"field": failure.field, **extra}
    retry_after = RETRY_AFTER_S if failure.retry_after is None else failure.retry_after
    return reply(failure.http_status, "fail", [failure.message], retry_after=retry_after, code=failure.code, **extra)
