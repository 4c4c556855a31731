"""The status of a response: success, or the error code of a download."""

from http import HTTPStatus

from common.net.connector import fetch_failed

# A proxy that changed the response answers with the second one (RFC 9110, 15.3.4).
_SUCCESSES = {HTTPStatus.OK, HTTPStatus.NON_AUTHORITATIVE_INFORMATION}
_RETRIED = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
CODES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "http_forbidden",
    HTTPStatus.FORBIDDEN: "http_forbidden",
    HTTPStatus.NOT_FOUND: "http_not_found",
    HTTPStatus.GONE: "http_gone",
    HTTPStatus.TOO_MANY_REQUESTS: "http_rate_limited",
}
"""The error codes of statuses that clients may treat differently."""
SERVER_ERROR = "http_server_error"
OTHER_STATUS = "http_status"


def check_status(status: int, host: str) -> None:
    """Raise FetchError for a status that comes without an image; a retry may get another one of some."""
    if status in _SUCCESSES:
        return
    failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    code = SERVER_ERROR if failed else CODES.get(status, OTHER_STATUS)
    raise fetch_failed(code, host, f"answered with status {status}", transient=failed or status in _RETRIED)
