"""Bulk requests: many actions in bodies of bounded size, and the result of each."""

import json
from collections.abc import Iterable, Iterator
from http import HTTPStatus

from common.store.base import Verdict, Written
from common.store.elastic.cluster import Cluster
from common.store.elastic.dialects import Json
from common.store.elastic.responses import UNAVAILABLE, reason

# How long a bulk request waits for an unavailable shard. It delays the response for all items. The default of a minute
# exceeds our time-out, which would lose the confirmation of the stored items.
SHARD_WITHIN_S = 5
# Far below http.max_content_length (100 MiB): a node keeps each body in memory. A record with the largest metadata that
# a request may contain takes about 2 MiB with its labels, mostly far less.
BULK_BYTES = 8 * 1024 * 1024


def action(name: str, document_id: str, version: int) -> str:
    """Return the action line for one document."""
    # external_gte: a redelivered item is written again, an older one is a conflict.
    return f'{{"{name}":{{"_id":"{document_id}","version":{version},"version_type":"external_gte"}}}}'


def condition(document_id: str, existing: Json) -> str:
    """Return the action line of a document that must be unchanged since it was read, or must not exist still."""
    if "_seq_no" not in existing:
        return json.dumps({"create": {"_id": document_id}})
    unchanged = {"if_seq_no": existing["_seq_no"], "if_primary_term": existing["_primary_term"]}
    return json.dumps({"index": {"_id": document_id, **unchanged}})


def bulk(cluster: Cluster, alias: str, lines: Iterable[str]) -> Iterator[Json]:
    """Send actions in bodies of bounded size, one after the other, and yield the result of each action."""
    for body in _bodies(lines):
        # Without require_alias the server would create a missing index with guessed fields.
        response = cluster.post_lines(f"/{alias}/_bulk", body, require_alias="true", timeout=f"{SHARD_WITHIN_S}s")
        for item in response["items"]:
            yield from item.values()


def written(result: Json) -> Written:
    """Return the outcome of one item in a bulk response."""
    status = result["status"]
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return Written(Verdict.STORED)
    if status == HTTPStatus.CONFLICT:
        return Written(Verdict.SUPERSEDED)
    return Written(Verdict.RETRY if status in UNAVAILABLE else Verdict.REJECTED, reason(result["error"]))


def _bodies(lines: Iterable[str]) -> Iterator[list[str]]:
    """Group lines so that no body exceeds BULK_BYTES, except one of a single line."""
    body: list[str] = []
    size = 0
    for line in lines:
        if body and size + len(line) > BULK_BYTES:
            yield body
            body, size = [], 0
        body.append(line)
        size += len(line)
    if body:
        yield body
