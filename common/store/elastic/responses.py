"""The server's responses: their completeness, and the client's errors as StoreError."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from elasticsearch import ApiError, TransportError, UnsupportedProductError

from common.errors import StoreError, StoreUnavailable
from common.store.elastic.dialects import Json

REASON_MAX = 500
# The server's name in messages until its product is known.
ANY_PRODUCT = "the index server"
PARTIAL = "some shards did not respond"
# A later retry may succeed: unreachable, not created yet, read-only, not authorized, overloaded.
UNAVAILABLE = {401, 403, 404, 408, 429, 500, 502, 503, 504}
# The name of a user or role of AWS, which clients must not learn.
_ARN = re.compile(r"\barn:\S+")


class ShardsUnavailable(StoreUnavailable):
    """The server answered a search with the error that no shard of it can answer now."""


@contextmanager
def wrap_errors(product: str) -> Iterator[None]:
    """Raise the client's errors as StoreError or StoreUnavailable; their messages name the product."""
    try:
        yield
    except UnsupportedProductError as error:
        # An OpenSearch that reports its product only in an existing mapping, or another server.
        raise StoreError("the server is not Elasticsearch; to detect OpenSearch, GET / must be allowed") from error
    except ApiError as error:
        kind = StoreUnavailable if error.status_code in UNAVAILABLE else StoreError
        message = f"{product} returned {error.status_code}: {_message(error)}"
        raise kind(message) from error
    except TransportError as error:
        message = f"{product} cannot be reached: {error.message}"[:REASON_MAX]
        raise StoreUnavailable(message) from error


def hits(response: Json) -> list[Json]:
    """Return the hits of one search. Raises StoreUnavailable if a shard did not respond."""
    if error := response.get("error"):
        if response["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
            raise ShardsUnavailable(reason(error))
        kind = StoreUnavailable if response["status"] in UNAVAILABLE else StoreError
        raise kind(reason(error))
    if response["timed_out"] or not is_whole(response):
        raise StoreUnavailable(PARTIAL)
    return list(response["hits"]["hits"])


def is_whole(response: Json) -> bool:
    """Return whether every shard responded to a search or a count."""
    # Not `failed`: the server counts an unassigned shard neither as successful nor as failed.
    return bool(response["_shards"]["successful"] == response["_shards"]["total"])


def reason(error: Json) -> str:
    """Return the reasons of an error and its causes.

    >>> reason({"type": "t", "reason": "failed to parse", "caused_by": {"reason": "not a number"}})
    'failed to parse: not a number'
    >>> reason({"type": "master_not_discovered_exception", "reason": None})
    'master_not_discovered_exception'
    """
    reasons = []
    cause: Json | None = error
    while cause:
        reasons.append(_first_line(cause.get("reason") or cause.get("type") or "unknown reason"))
        cause = cause.get("caused_by")
    return ": ".join(reasons)[-REASON_MAX:]


def _first_line(text: object) -> str:
    """Return the text without documents, which follow on further lines or in the quoted request.

    >>> _first_line("primary shard is not active Timeout: [5s], request: [BulkShardRequest [source[{}]]]")
    'primary shard is not active Timeout: [5s]'
    """
    return str(text).partition("\n")[0].partition(", request: [")[0]


def _message(error: ApiError) -> str:
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        # The reason names our user, which clients must not learn.
        return "invalid credentials"
    body = error.body if isinstance(error.body, dict) else {}
    details = body.get("error")
    if isinstance(details, dict):
        return reason(details)
    # Amazon's proxy rejects a request in this form, before the server receives it.
    text = body.get("message") or body.get("Message") or error.message
    return _ARN.sub("…", _first_line(text))[:REASON_MAX]
