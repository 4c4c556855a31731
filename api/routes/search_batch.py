"""POST /search/batch: many searches in one request, one JSON object and one result per line."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from tempfile import SpooledTemporaryFile
from typing import Any

from flask import Response, request
from werkzeug.exceptions import ClientDisconnected

from api import replies
from api.access.collections import check_allowed
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.errors import ERRORS
from api.forms import requests
from api.forms.lines import Line, blocks
from api.forms.reading import LINE_TYPES, read_line
from api.outcomes import rejected
from api.rate_limits import client_of_request
from api.routes.batch import chunks
from api.routes.search import match_json, options_of
from api.services import Services
from api.usage import count
from api.use_cases.search_images import SearchResult
from api.use_cases.search_many import Result, SearchItem, SearchMany
from common.config import Settings
from common.errors import BUSY_RETRY_AFTER_S, InputError, MatchError, Overloaded
from common.queue.usage import Counted
from common.warning_codes import FEATURELESS, warning_text

# The longest URL or filepath and a filter of 16 values, each byte written as an escape.
LINE_BYTES = 1024 * 1024
# Results are kept in memory up to this size, then in a file.
MEMORY_BYTES = 1024 * 1024
# A reply may have a thousand matches with metadata on each line.
REPLY_BYTES = 64 * 1024 * 1024


def search_batch(services: Services, params: requests.SearchBatch) -> Response:
    """Search with many images, one JSON object per line, and answer with one line of results each.

    The body has up to 1,000 lines (`MATCH_MAX_SEARCH_LINES`), each with the parameters of `/search`, except `image`.
    The reply starts after the end of the body: one result per line, in order, with the number of its line. A line that
    fails has a `code`, and costs no other line its result. A line that is not begun in time
    (`MATCH_MAX_SEARCH_BATCH_S`) has a `retry_after` in seconds.

    Searches by `filepath` share their calls of the store, so that a batch in the mode `fast` is several times as fast
    as single requests.
    """
    lines = _lines(services.settings)
    with ExitStack() as resources:
        # Until the reply is sent: a client that reads slowly does not begin another batch meanwhile.
        resources.enter_context(services.search_batch_limit.acquire(client_of_request()))
        results = resources.enter_context(SpooledTemporaryFile(max_size=MEMORY_BYTES))
        items = (_item(services, line, params.collection) for line in lines)
        for data in _encoded(lines, search_many(services, items)):
            results.write(data)
        size = results.tell()
        results.seek(0)
        response = Response(chunks(results), mimetype=LINE_TYPES[0])
        response.content_length = size
        response.call_on_close(resources.pop_all().close)
    return response


def item_of(services: Services, params: requests.Search | requests.SearchLine) -> SearchItem:
    """Return one of many searches by its parameters."""
    settings = services.settings
    return SearchItem(
        source=params.source, options=options_of(params, settings), mode=params.mode or settings.search_mode
    )


def search_many(services: Services, items: Iterable[SearchItem | MatchError]) -> Iterator[Result]:
    """Yield the result of each search or its error, and count the searches with a result."""
    search = SearchMany(services.search_images).search
    for result in search(items, client=client_of_request(), within_s=services.settings.max_search_batch_s):
        if isinstance(result, SearchResult):
            count(Counted.SEARCHES, 1, collection=result.collection)
        yield result


def _lines(settings: Settings) -> Sequence[Line]:
    """Return all lines; raises InputError for too many of them, and for a body that ends early."""
    most = settings.max_search_lines
    received = blocks(request.stream, content_length=request.content_length, max_bytes=LINE_BYTES)
    try:
        lines = list(islice(chain.from_iterable(received), most + 1))
    except ClientDisconnected:
        raise InputError(ERRORS["truncated_body"].text, field="body", code="truncated_body") from None
    if len(lines) > most:
        message = f"body: a request has at most {most} lines (MATCH_MAX_SEARCH_LINES)"
        raise InputError(message, field="body", code="too_large")
    return lines


def _item(services: Services, line: Line, collection: str) -> SearchItem | MatchError:
    try:
        if line.data is None:
            raise InputError(f"the line is longer than {LINE_BYTES} bytes", field="line", code="line_too_long")
        params = read_line(requests.SearchLine, line.data, services.settings, collection=collection)
        check_allowed(params.collection)
        services.collections.check_exists(params.collection)
    except MatchError as error:
        return error
    return item_of(services, params)


def _encoded(lines: Sequence[Line], results: Iterator[Result]) -> Iterator[bytes]:
    """Yield the results as lines; the searches beyond REPLY_BYTES are not begun."""
    size = 0
    for line in lines:
        too_large = Overloaded("the results before this one are too large", retry_after=BUSY_RETRY_AFTER_S)
        result = next(results) if size < REPLY_BYTES else too_large
        # A client's parameter name may hold half of a surrogate pair, which has no UTF-8.
        text = json.dumps({"line": line.number, **_result_json(result)}, ensure_ascii=False, separators=(",", ":"))
        data = text.encode("utf-8", "replace") + b"\n"
        size += len(data)
        yield data


def _result_json(result: Result) -> dict[str, Any]:
    if isinstance(result, MatchError):
        return {"result": [], **rejected(result).to_json()}
    if result.is_featureless:
        warning = {"status": "warn", "error": [warning_text(FEATURELESS)], "code": FEATURELESS}
        return {**warning, "result": [], "mode": result.mode}
    matches = [match_json(match) for match in result.matches]
    return {"status": "ok", "error": [], "result": matches, "mode": result.mode}


ENDPOINTS = (
    Endpoint(
        name="search_batch",
        path="/search/batch",
        scope=Scope.READ,
        methods=("POST",),
        view=search_batch,
        reply=Reply(result=replies.SearchOutcome, errors=(503,)),
        parameters=(requests.SearchBatch,),
        line=requests.SearchLine,
        body_bytes="max_search_batch_bytes",
    ),
)
