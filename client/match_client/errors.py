"""The errors of the client: one tree, with the service's code, parameter and waiting time."""

from http import HTTPStatus


class MatchError(Exception):
    """An error; `code` is for programs, the text for people.

    `field` is the parameter that caused it, `retry_after` the seconds after which a retry may succeed, `status` the
    HTTP status and `request_id` the request's name in the service's log. Each is None if the error has none.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        field: str | None = None,
        retry_after: float | None = None,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.retry_after = retry_after
        self.status = status
        self.request_id = request_id


class ConnectionLost(MatchError):
    """The service did not answer, or the connection broke; the request may have been executed."""


class UnexpectedReply(MatchError):
    """The reply is not from Match: a proxy or another program answered."""


class Unavailable(MatchError):
    """The service cannot answer now: 429, 502, 503 or 504."""


class InternalError(MatchError):
    """A defect of the service: 500. Its log has the details under `request_id`."""


class RequestRejected(MatchError):
    """The service rejected the request: a status from 400 to 499."""


class AccessDenied(RequestRejected):
    """The API key is missing or invalid, or it does not permit the request: 401 or 403."""


class NotFound(RequestRejected):
    """The image, task, batch, collection or endpoint does not exist: 404."""


class Conflict(RequestRejected):
    """The state of the task, or an earlier request, excludes the request: 409."""


class ImageError(RequestRejected):
    """The image cannot be fetched, read or stored; `code` is the reason."""


class InvalidSource(MatchError):
    """The image to send cannot be read on this machine."""


class TaskRunning(MatchError):
    """The task did not end in the time to wait for it."""


class InvalidWebhook(MatchError):
    """A webhook without a valid signature, or too old."""


TEMPORARY = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_CLASSES: dict[int, type[MatchError]] = {
    HTTPStatus.UNAUTHORIZED: AccessDenied,
    HTTPStatus.FORBIDDEN: AccessDenied,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.UNPROCESSABLE_ENTITY: ImageError,
    **dict.fromkeys(TEMPORARY, Unavailable),
}


def class_of(status: int) -> type[MatchError]:
    """Return the class of the error with this HTTP status."""
    is_rejected = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return _CLASSES.get(status, RequestRejected if is_rejected else InternalError)
