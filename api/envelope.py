"""The reply's form, and the one table from our errors to HTTP status."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from api.reading import TooLarge, UnsupportedBody
from api.sources import UnknownFilepath
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
    (TooLarge, 413),
    (UnsupportedBody, 415),
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
}

# Nothing of what broke inside is told; the log has it under the request's id.
INTERNAL = "an internal error ended this request"


def ok(result: Sequence[Any] = (), *, http_status: int = 200, warnings: Sequence[str] = (), **added: Any) -> Response:  # noqa: ANN401 - JSON
    """Return a successful reply; `added` stands beside the four keys that are always there."""
    return _reply(http_status, {"status": "warn" if warnings else "ok", "error": warnings, "result": result, **added})


def fail(http_status: int, message: str, *, code: str, field: str | None = None, **added: Any) -> Response:  # noqa: ANN401 - JSON
    """Return a failure that says what is wrong, and where."""
    where = {} if field is None else {"field": field}
    response = _reply(http_status, {"status": "fail", "error": [message], "result": [], "code": code, **where, **added})
    if http_status == 503:  # noqa: PLR2004 - an HTTP status
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def fail_with(error: MatchError) -> Response:
    """Return the failure for one of our errors."""
    status = next((status for kind, status in STATUS_OF if isinstance(error, kind)), 500)
    if status == 500:  # noqa: PLR2004 - an HTTP status
        return fail(500, INTERNAL, code="internal_error")
    response = fail(status, str(error), code=error.code, field=error.field)
    if isinstance(error, Overloaded):
        response.headers["Retry-After"] = str(error.retry_after)
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
        return f"{request.path} does not take {request.method}"
    return f"{error.name}: {request.path}" if error.code == 404 else error.name  # noqa: PLR2004 - an HTTP status


def _reply(status: int, body: Mapping[str, Any]) -> Response:
    response = jsonify({"method": request.endpoint or request.path.strip("/").partition("/")[0], **body})
    response.status_code = status
    return response
