"""Bulk writes: many actions in bodies of bounded size, and what became of each."""

from collections.abc import Iterable, Iterator
from http import HTTPStatus

from elasticsearch import Elasticsearch

from common.store.base import Verdict, Written
from common.store.elastic.answers import UNAVAILABLE, Json, our_errors, reason

# So long a bulk waits for a shard that is away, before it answers for all. Elasticsearch's own minute is longer than
# anybody waits for the answer: what was stored would not be confirmed either.
SHARD_WITHIN_S = 5
# Bodies stay far below http.max_content_length (100 MiB): a node holds each in memory. A record with the largest
# metadata that a request may bring takes some 2 MiB with its labels, mostly far less.
BULK_BYTES = 8 * 1024 * 1024


def action(name: str, document_id: str, version: int) -> str:
    """Return a bulk's line for one document."""
    # external_gte: a redelivery is written again, anything older is a conflict.
    return f'{{"{name}":{{"_id":"{document_id}","version":{version},"version_type":"external_gte"}}}}'


def bulk(client: Elasticsearch, alias: str, lines: Iterable[str]) -> Iterator[Json]:
    """Send actions in bodies of bounded size, one after the other, and yield each action's result."""
    for body in _bodies(lines):
        with our_errors():
            answer = client.bulk(
                index=alias,
                # Else a missing index would be made up, with guessed fields.
                require_alias=True,
                timeout=f"{SHARD_WITHIN_S}s",
                operations=body,  # type: ignore[arg-type] # the client sends strings as they are
            )
        for item in answer["items"]:
            yield from item.values()


def written(result: Json) -> Written:
    """Read one item's result in the answer of a bulk."""
    status = result["status"]
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return Written(Verdict.STORED)
    if status == HTTPStatus.CONFLICT:
        return Written(Verdict.SUPERSEDED)
    return Written(Verdict.HELD if status in UNAVAILABLE else Verdict.REJECTED, reason(result["error"]))


def _bodies(lines: Iterable[str]) -> Iterator[list[str]]:
    """Group lines so that no body is larger than BULK_BYTES, save for a line that is so alone."""
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
