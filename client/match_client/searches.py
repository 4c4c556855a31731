"""Many searches: batches of bounded size, each a request whose failed lines are sent again."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import Any

from match_client.errors import RequestRejected, Unavailable
from match_client.results import Matches, SearchOutcome
from match_client.transport import NDJSON, Backoff, Request, Transport

# A lost connection makes the client send at most this number of searches again.
MAX_LINES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A search by the stored image `filepath`, or by the image at a URL; None is the service's default."""

    filepath: str | None = None
    url: str | None = None
    limit: int | None = None
    offset: int | None = None
    min_score: float | None = None
    filter: Mapping[str, object] | None = None
    all_orientations: bool | None = None
    mode: str | None = None
    collection: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the line of the search."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


def search_all(transport: Transport, queries: Iterable[SearchQuery]) -> Iterator[SearchOutcome]:
    """Search and yield the outcomes, in order; memory holds one batch.

    A search that the service cannot run now is sent again, as long as the service answers others or within the
    transport's time.
    """
    remaining = enumerate(queries)
    while some := dict(islice(remaining, MAX_LINES)):
        outcomes = _search(transport, some)
        yield from (outcomes[number] for number in some)


def _search(transport: Transport, queries: Mapping[int, SearchQuery]) -> dict[int, SearchOutcome]:
    """Send the searches until each has matches or a final error."""
    outcomes: dict[int, SearchOutcome] = {}
    left = queries
    backoff = transport.backoff()
    while left:
        try:
            outcomes |= _send(transport, left)
        except RequestRejected as error:
            if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE or len(left) == 1:
                raise
            # The service permits fewer lines or bytes in a batch.
            numbers = list(left)
            for half in (numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]):
                outcomes |= _search(transport, {number: left[number] for number in half})
            return outcomes
        postponed = {number: query for number, query in left.items() if outcomes[number].retry_after is not None}
        if postponed:
            _wait(backoff, outcomes[next(iter(postponed))], has_progress=len(postponed) < len(left))
        left = postponed
    return outcomes


def _send(transport: Transport, queries: Mapping[int, SearchQuery]) -> dict[int, SearchOutcome]:
    body = "".join(json.dumps(query.to_json()) + "\n" for query in queries.values())
    request = Request(method="POST", path="/search/batch", body=body.encode(), content_type=NDJSON)
    results = [json.loads(line) for line in transport.send(request).body.splitlines()]
    if len(results) < len(queries):
        raise Unavailable("the reply has no result for some searches", code="incomplete_reply")
    return {
        number: SearchOutcome(
            number=number,
            filepath=query.filepath,
            url=query.url,
            status=result["status"],
            errors=tuple(result["error"]),
            code=result.get("code"),
            field=result.get("field"),
            retry_after=result.get("retry_after"),
            matches=Matches.from_json(result),
        )
        for (number, query), result in zip(queries.items(), results, strict=False)
    }


def _wait(backoff: Backoff, postponed: SearchOutcome, *, has_progress: bool) -> None:
    """Wait before searches are sent again; raise the error of one if the service answers none."""
    if has_progress:
        backoff.reset()
    backoff.wait_after(
        Unavailable(
            "; ".join(postponed.errors),
            code=postponed.code or "overloaded",
            field=postponed.field,
            retry_after=postponed.retry_after,
        )
    )
