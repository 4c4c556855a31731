"""Replies to what never becomes a request: in the envelope, as all others, though no app is reached."""

import json
import secrets
from dataclasses import dataclass
from http import HTTPStatus

from gunicorn.http import errors

from api.access.headers import SECURITY

RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not taken: the reply's status, its code and its text."""

    status: int
    code: str
    message: str


TOO_SLOW = Refusal(408, "request_timeout", "the request did not come in within its time")
NO_ROOM = Refusal(503, "overloaded", "too much is coming in at once")
BUSY = Refusal(503, "overloaded", "too many requests at once")
HEADERS = Refusal(431, "headers_too_large", "the headers of the request are too many or too large")
CHUNKS = Refusal(400, "bad_request", "the body comes in too many small chunks")
NO_HTTP = Refusal(400, "bad_request", "the request is no HTTP that can be answered")
FAULT = Refusal(500, "internal_error", "an internal error ended this request")
# None of their texts is told, here or in the log: they hold what the client sent.
REFUSAL_OF: tuple[tuple[type[Exception], Refusal], ...] = (
    (errors.InvalidResponseHeader, FAULT),  # type: ignore[attr-defined]  # the stubs lack it
    (errors.InvalidResponseHeaderName, FAULT),  # type: ignore[attr-defined]  # the same
    (errors.ConfigurationProblem, FAULT),
    (errors.LimitRequestLine, Refusal(414, "uri_too_long", "the first line of the request is too long")),
    (errors.LimitRequestHeaders, HEADERS),
    (errors.ExpectationFailed, Refusal(417, "expectation_failed", "the Expect header must be 100-continue")),
    (
        errors.UnsupportedTransferCoding,
        Refusal(501, "unsupported_transfer_coding", "the body is sent in a coding that is not read"),
    ),
    (errors.ParseException, NO_HTTP),
)


def refusal_of(error: BaseException) -> Refusal:
    """Return what a client is told of an error that gunicorn found."""
    return next((refusal for kind, refusal in REFUSAL_OF if isinstance(error, kind)), FAULT)


def reply(refusal: Refusal) -> bytes:
    """Return the whole reply; the connection ends with it."""
    body = json.dumps(
        {"method": "", "status": "fail", "error": [refusal.message], "result": [], "code": refusal.code}
    ).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": f"{len(body)}",
        "Connection": "close",
        "X-Request-ID": secrets.token_hex(16),
        **SECURITY,
    }
    if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = f"{RETRY_AFTER_S}"
    lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
