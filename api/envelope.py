"""The reply's form, and the one table from our errors to HTTP status."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from api.access.authorization import Forbidden, Refused, Unauthenticated
from api.forms.reading import TooLarge, UnsupportedBody
from api.sources import UnknownFilepath
from api.use_cases.idempotency import IdempotencyConflict
from common.errors import (
    FetchError,
    ImageError,
    InputError,
    MatchError,
    Overloaded,
    QueueUnavailable,
    StoreUnavailable,
)

RETRY_AFTER_S = 5

STATUS_OF: tuple[tuple[type[MatchError], int], ...] = (
    (Unauthenticated, 401),
    (Forbidden, 403),
    (TooLarge, 413),
    (UnsupportedBody, 415),
    (IdempotencyConflict, 409),
    (InputError, 400),
    (UnknownFilepath, 404),
    (ImageError, 422),
    (FetchError, 422),
    (Overloaded, 503),
    (QueueUnavailable, 503),
    (StoreUnavailable, 503),
)

CODE_OF = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
}

# Nothing of what broke inside is told; the log has it under the request's id.
INTERNAL = "an internal error ended this request"


@dataclass(frozen=True, slots=True)
class Failure:
    """What a client is told of an error; `retry_after`, in seconds, where the same may succeed later."""

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
    **added: Any,  # noqa: ANN401 - JSON
) -> Response:
    """Return a reply: the four keys that are always there, and `added` beside them.

    `retry_after`, in seconds, is told where the service cannot do it now.
    """
    method = request.endpoint or request.path.strip("/").partition("/")[0]
    response = jsonify({"method": method, "status": status, "error": error, "result": result, **added})
    response.status_code = http_status
    if http_status == 503:  # noqa: PLR2004 - an HTTP status
        response.headers["Retry-After"] = str(retry_after)
    return response


def ok(result: Sequence[Any] = (), *, http_status: int = 200, warnings: Sequence[str] = (), **added: Any) -> Response:  # noqa: ANN401 - JSON
    """Return a successful reply."""
    return reply(http_status, "warn" if warnings else "ok", warnings, result, **added)


def fail(http_status: int, message: str, *, code: str, field: str | None = None, **added: Any) -> Response:  # noqa: ANN401 - JSON
    """Return a failure that says what is wrong, and where."""
    where: dict[str, Any] = {} if field is None else {"field": field}
    return reply(http_status, "fail", [message], code=code, **where, **added)


def failure_of(error: MatchError) -> Failure:
    """Return what a client is told of one of our errors."""
    status = next((status for kind, status in STATUS_OF if isinstance(error, kind)), 500)
    if status == 500:  # noqa: PLR2004 - an HTTP status
        return Failure(500, INTERNAL, "internal_error")
    again = error.retry_after if isinstance(error, Overloaded) else RETRY_AFTER_S
    return Failure(status, str(error), error.code, error.field, again if status == 503 else None)  # noqa: PLR2004 - the same


def fail_with(error: MatchError) -> Response:
    """Return the failure for one of our errors."""
    failure = failure_of(error)
    again = RETRY_AFTER_S if failure.retry_after is None else failure.retry_after
    response = fail(failure.http_status, failure.message, code=failure.code, field=failure.field, retry_after=again)
    if isinstance(error, Refused):
        response.headers["WWW-Authenticate"] = error.challenge
    return response


def fail_with_http(error: HTTPException) -> Response:
    """Return the failure for an error that the web framework found."""
    status = error.code or 500
    response = fail(status, _message(error), code=CODE_OF.get(status, "bad_request"))
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _message(error: HTTPException) -> str:
    if isinstance(error, RequestEntityTooLarge):
        return "the request's body is larger, or has more parts, than this endpoint takes"
    if isinstance(error, MethodNotAllowed):
        # HEAD goes without saying where GET is.
        taken = sorted({*(error.valid_methods or ())} - {"HEAD"})
        return f"{request.path} takes {' and '.join(taken)}, not {request.method}"
    return f"nothing is at {request.path}; see /docs" if error.code == 404 else error.name  # noqa: PLR2004 - an HTTP status
