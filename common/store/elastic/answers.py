"""Elasticsearch's answers: whether they are whole, and its errors as ours."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeAlias

from elasticsearch import ApiError, TransportError, UnsupportedProductError

from common.errors import StoreError, StoreUnavailable

REASON_MAX = 500
PARTIAL = "Elasticsearch: a part of the index did not answer"
# An operator, or time, can mend these: away, not created yet, read-only, not allowed, too much at once.
UNAVAILABLE = {401, 403, 404, 408, 429, 500, 502, 503, 504}

Json: TypeAlias = Mapping[str, Any]


@contextmanager
def our_errors() -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except UnsupportedProductError as error:
        raise StoreError("what answers is not Elasticsearch") from error
    except ApiError as error:
        kind = StoreUnavailable if error.status_code in UNAVAILABLE else StoreError
        message = f"Elasticsearch answered {error.status_code}: {_told(error)}"
        raise kind(message) from error
    except TransportError as error:
        message = f"Elasticsearch cannot be reached: {error.message}"[:REASON_MAX]
        raise StoreUnavailable(message) from error


def hits(response: Json) -> list[Json]:
    """Return the hits of one search; a search that a part of the index did not answer has none to trust."""
    if error := response.get("error"):
        message = f"Elasticsearch: {reason(error)}"
        raise StoreUnavailable(message) if response["status"] in UNAVAILABLE else StoreError(message)
    if response["timed_out"] or not is_whole(response):
        raise StoreUnavailable(PARTIAL)
    return list(response["hits"]["hits"])


def is_whole(response: Json) -> bool:
    """Say whether every part of the index answered a search or a count."""
    # Not whether one failed: Elasticsearch has long counted a shard that is nowhere as neither success nor failure.
    return bool(response["_shards"]["successful"] == response["_shards"]["total"])


def reason(error: Json) -> str:
    """Return what Elasticsearch says, down to the cause.

    >>> reason({"type": "t", "reason": "failed to parse", "caused_by": {"reason": "no number"}})
    'failed to parse: no number'
    >>> reason({"type": "master_not_discovered_exception", "reason": None})
    'master_not_discovered_exception'
    """
    reasons = []
    cause: Json | None = error
    while cause:
        reasons.append(_first_line(cause.get("reason") or cause.get("type") or "no reason given"))
        cause = cause.get("caused_by")
    return ": ".join(reasons)[-REASON_MAX:]


def _first_line(text: object) -> str:
    """Leave out the documents, which come on further lines, or with the request that is quoted.

    >>> _first_line("primary shard is not active Timeout: [5s], request: [BulkShardRequest [source[{}]]]")
    'primary shard is not active Timeout: [5s]'
    """
    return str(text).partition("\n")[0].partition(", request: [")[0]


def _told(error: ApiError) -> str:
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        # It says whom it refuses, which is nothing for clients.
        return "it refuses our credentials"
    told = error.body.get("error") if isinstance(error.body, dict) else None
    return reason(told) if isinstance(told, dict) else _first_line(error.message)[:REASON_MAX]
