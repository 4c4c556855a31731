"""Every error that a client can receive, declared once: its code, HTTP statuses and text.

Code raises errors with a `code`; only this module maps codes to HTTP statuses. Replies, the OpenAPI document and the
table in docs/api.md take status and text from here.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.errors import FetchError, ImageError, MatchError


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """An error: `text` describes it, and is the message of a reply that has no more specific one.

    With two statuses, the first is for a wrong request and the second, 422, for an image that a request names. A failed
    task has the codes of 422 and 500.
    """

    code: str
    text: str
    statuses: tuple[int, ...]

    @property
    def status(self) -> int:
        """The status of a request with this error."""
        return self.statuses[0]


SUMMARIES: Mapping[int, str] = {
    400: "Invalid request; `field` names the parameter.",
    401: "No valid API key. Send one as `Authorization: Bearer KEY`.",
    403: "The API key lacks the scope, a quota is used up, or a page of another site sent the request.",
    404: "Not found.",
    405: "The path does not accept this method; `Allow` lists the methods that it accepts.",
    409: "The task or batch does not permit this, `expect` differs, or another request used the `Idempotency-Key`.",
    413: "The image or the body is too large.",
    414: "The URL is too long.",
    415: "The media type of the body is not supported.",
    422: "The image cannot be fetched or decoded; `field` names its parameter.",
    429: "Too many requests. Retry after the seconds in `Retry-After`.",
    431: "The headers are too large.",
    500: "Internal error. The service's log has the details under the `X-Request-ID`.",
    501: "The transfer encoding of the body is not supported.",
    503: "Temporarily unavailable. Retry after the seconds in `Retry-After`.",
}

_SPECS = (
    ErrorSpec("wrong_parameter", "a parameter has an invalid value", (400,)),
    ErrorSpec("missing_parameter", "a required parameter is missing", (400,)),
    ErrorSpec("unknown_parameter", "the endpoint has no such parameter", (400,)),
    ErrorSpec("repeated_parameter", "a parameter occurs more than once", (400,)),
    ErrorSpec("no_webhook_secret", "callback_url needs a webhook secret in the service's settings", (400,)),
    ErrorSpec("line_too_long", "a line of the batch is too long", (400,)),
    ErrorSpec("too_many_lines", "the batch has too many lines", (400,)),
    ErrorSpec("truncated_body", "the body ended early", (400,)),
    ErrorSpec("bad_request", "malformed HTTP request", (400,)),
    ErrorSpec("key_required", "API key required", (401,)),
    ErrorSpec("unknown_key", "invalid API key", (401,)),
    ErrorSpec("missing_scope", "the API key lacks the required scope", (403,)),
    ErrorSpec("cross_site", "a page of another site sent the request", (403,)),
    ErrorSpec("unknown_host", "the Host header names another service", (403,)),
    ErrorSpec("quota_exceeded", "the collection has as many images as its quota allows", (403,)),
    ErrorSpec("too_many_collections", "no further collection may be created", (403,)),
    ErrorSpec("unknown_collection", "the collection does not exist, or the API key may not use it", (404,)),
    ErrorSpec("unknown_filepath", "no image is stored under this filepath", (404,)),
    ErrorSpec("no_thumbnail", "no thumbnail of this image is kept", (404,)),
    ErrorSpec("unknown_task", "unknown task, or its record has expired", (404,)),
    ErrorSpec("unknown_batch", "unknown batch, or its record has expired", (404,)),
    ErrorSpec("not_found", "not found", (404,)),
    ErrorSpec("method_not_allowed", "method not allowed", (405,)),
    ErrorSpec("unexpected_count", "another number of images is selected than `expect`", (409,)),
    ErrorSpec("not_failed", "only a failed task can be retried", (409,)),
    ErrorSpec("not_pending", "only a pending task can be cancelled", (409,)),
    ErrorSpec(
        "too_late", "the task is too old to be retried: a newer deletion may be unknown; add the image again", (409,)
    ),
    ErrorSpec("batch_conflict", "the batch belongs to another API key or collection", (409,)),
    ErrorSpec("batch_cancelled", "the batch is cancelled", (409,)),
    ErrorSpec("idempotency_conflict", "Idempotency-Key was already used with a different request", (409,)),
    ErrorSpec("uri_too_long", "the URL is too long", (414,)),
    ErrorSpec("unsupported_media_type", "Content-Type or Content-Encoding is not supported", (415,)),
    ErrorSpec("too_many_requests", "too many requests", (429,)),
    ErrorSpec("headers_too_large", "the headers are too large", (431,)),
    ErrorSpec("unsupported_transfer_coding", "unsupported transfer encoding", (501,)),
    ErrorSpec("overloaded", "server overloaded, retry later", (503,)),
    ErrorSpec("host_unavailable", "too many images wait for this host", (503,)),
    ErrorSpec("queue_unavailable", "Redis is unavailable", (503,)),
    ErrorSpec("store_unavailable", "the store is unavailable", (503,)),
    ErrorSpec("not_ready", "searches are unavailable", (503,)),
    # Of a request, and of an image.
    ErrorSpec("empty_image", "the image file is empty", (400, 422)),
    ErrorSpec("bad_url", "invalid URL", (400, 422)),
    ErrorSpec("forbidden_scheme", "the scheme of the URL is not http or https", (400, 422)),
    ErrorSpec("forbidden_userinfo", "the URL contains a user name or password", (400, 422)),
    ErrorSpec("forbidden_port", "the port of the URL is not allowed", (400, 422)),
    ErrorSpec("private_address", "the host is a private address", (400, 422)),
    ErrorSpec("upload_lost", "the uploaded file no longer exists; upload it again", (409, 422)),
    ErrorSpec("too_large", "the image or the body is too large, or the form has too many parts", (413, 422)),
    # Of an image only.
    ErrorSpec("not_an_image", "the data is not an image", (422,)),
    ErrorSpec("unsupported_format", "the image format is not supported", (422,)),
    ErrorSpec("truncated_image", "the image file is truncated", (422,)),
    ErrorSpec("broken_image", "the image cannot be decoded", (422,)),
    ErrorSpec("unreadable_image", "the image cannot be read", (422,)),
    ErrorSpec("too_many_pixels", "the image has too many pixels", (422,)),
    ErrorSpec("image_too_large_to_decode", "decoding the image takes too much memory", (422,)),
    ErrorSpec("decode_timeout", "decoding the image takes too long", (422,)),
    ErrorSpec("decoder_crashed", "the decoder crashed while it decoded the image", (422,)),
    ErrorSpec("fetch_failed", "the download failed", (422,)),
    ErrorSpec("http_not_found", "the host has no such file (404)", (422,)),
    ErrorSpec("http_gone", "the host has the file no longer (410)", (422,)),
    ErrorSpec("http_forbidden", "the host refuses the file (401, 403)", (422,)),
    ErrorSpec("http_rate_limited", "the host receives too many requests (429)", (422,)),
    ErrorSpec("http_server_error", "the host failed (5xx)", (422,)),
    ErrorSpec("http_status", "the host answered with another status than 200", (422,)),
    ErrorSpec("robots_tag", "the host reserves the image by an X-Robots-Tag", (422,)),
    ErrorSpec("timeout", "the download timed out", (422,)),
    ErrorSpec("connect_failed", "cannot connect to the host", (422,)),
    ErrorSpec("unresolvable_host", "the host name has no public address", (422,)),
    ErrorSpec("tls_failed", "TLS handshake failed", (422,)),
    ErrorSpec("too_many_redirects", "too many redirects", (422,)),
    ErrorSpec("encoded_body", "the host sent a compressed body that is not gzip", (422,)),
    ErrorSpec("bad_response", "the host sent a malformed HTTP response", (422,)),
    ErrorSpec("short_body", "the host closed the connection before the end of the body", (422,)),
    ErrorSpec("read_failed", "the connection to the host was lost", (422,)),
    ErrorSpec("closed", "the service was shutting down", (422,)),
    ErrorSpec("internal_error", "internal error", (500,)),
    # The reply to a request has internal_error instead, or no reply.
    ErrorSpec("worker_lost", "workers were lost while they ran the task", (500,)),
    ErrorSpec("store_error", "the store rejected the image", (500,)),
)
ERRORS: Mapping[str, ErrorSpec] = {spec.code: spec for spec in _SPECS}
IMAGE_STATUS = 422
INTERNAL_STATUS = 500


def _by_status(specs: Iterable[ErrorSpec]) -> dict[int, list[ErrorSpec]]:
    by_status: defaultdict[int, list[ErrorSpec]] = defaultdict(list)
    for spec in specs:
        for status in spec.statuses:
            by_status[status].append(spec)
    return dict(sorted(by_status.items()))


BY_STATUS: Mapping[int, list[ErrorSpec]] = _by_status(_SPECS)
# Errors of the service, not of the image: no other image would have succeeded.
INTERNAL_CODES = frozenset(spec.code for spec in BY_STATUS[INTERNAL_STATUS])
TASK_CODES = tuple(sorted(spec.code for status in (IMAGE_STATUS, INTERNAL_STATUS) for spec in BY_STATUS[status]))


def status_of(error: MatchError) -> int:
    """Return the HTTP status of a reply to a request that ended in this error."""
    if isinstance(error, ImageError | FetchError):
        return IMAGE_STATUS
    return ERRORS[error.code].status if error.code in ERRORS else INTERNAL_STATUS
