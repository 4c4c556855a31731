"""The status of a response: success, or the error code of a download."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from common.net.connector import TransientFetchError, fetch_failed

# A proxy that changed the response answers with the second one (RFC 9110, 15.3.4).
_SUCCESSES = {HTTPStatus.OK, HTTPStatus.NON_AUTHORITATIVE_INFORMATION}
_RETRIED = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
# The host receives too many requests (RFC 6585, 4; RFC 9110, 15.6.4).
_REJECTIONS = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
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


def check_status(status: int, host: str, retry_after: str | None = None) -> None:
    """Raise FetchError for a status that comes without an image; `retry_after` is the header of that name.

    It is a TransientFetchError if a later retry may get another status.
    """
    if status in _SUCCESSES:
        return
    failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    code = SERVER_ERROR if failed else CODES.get(status, OTHER_STATUS)
    reason = f"answered with status {status}"
    if not failed and status not in _RETRIED:
        raise fetch_failed(code, host, reason)
    raise TransientFetchError(
        f"{host} {reason}", code=code, is_rejection=status in _REJECTIONS, retry_after_s=read_retry_after(retry_after)
    )


def read_retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which are a number or a date; None for an invalid one.

    >>> read_retry_after("120"), read_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), read_retry_after("soon")
    (120.0, 0.0, None)
    """
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        # More digits than a time has would not fit into a float.
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        # A year, a time or an offset of many digits fits into no integer of C.
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
