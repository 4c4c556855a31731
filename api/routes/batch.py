"""Adding thousands of pictures by one request: a line of JSON each, and an outcome a line."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO

from flask import Response, g, request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from api import callbacks, replies
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.forms import requests
from api.forms.lines import Line, blocks
from api.forms.reading import LINE_TYPES, check_names, parse
from api.outcomes import Outcome, accepted, refused
from api.services import Services
from api.work.idempotency import Once, marked, once
from api.work.intake import Wanted
from common.config import Settings
from common.errors import InputError, MatchError
from common.queue.jobs import BATCH_QUEUE
from common.queue.tasks import Entry

log = logging.getLogger(__name__)

BODY_BYTES = 256 * 1024 * 1024
# A URL, a filepath and metadata of the largest, each byte written as an escape.
LINE_BYTES = 512 * 1024
LINES = 100_000
# Outcomes are kept in memory up to this size, then in a file: about a thousand, more than most batches have.
MEMORY_BYTES = 256 * 1024
READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Terms:
    """What holds for all lines of a request."""

    request_id: str
    callback: str
    key: Once


def batch(services: Services, given: requests.Batch) -> Response:
    """Accept pictures by URL, a line of JSON each, and tell what became of each line.

    The body has up to 100,000 lines. The reply starts after the end of the body: an outcome a line, in order, with the
    number of its line. A line that cannot be accepted now has a `retry_after` in seconds. What was accepted stays
    accepted, should the connection break: sent again with the same `Idempotency-Key`, lines that were accepted have
    the same tasks, `replayed`, and the others are accepted now.
    """
    key = once(given.idempotency_key)
    terms = _Terms(g.request_id, callbacks.checked(services, given.callback_url), key)
    with ExitStack() as opened:
        # Both last until the reply is sent, or the client has gone.
        opened.enter_context(services.batching.passage())
        # Sent earlier, outcomes would fill the buffers of a client that reads nothing before it has sent everything.
        outcomes = opened.enter_context(SpooledTemporaryFile(max_size=MEMORY_BYTES))
        replayed = _seen_before(services, key)
        lines = blocks(request.stream, content_length=request.content_length, most_bytes=LINE_BYTES)
        outcomes.writelines(_outcomes(services, lines, terms))
        size = outcomes.tell()
        outcomes.seek(0)
        response = Response(_pieces(outcomes), mimetype=LINE_TYPES[0])
        response.content_length = size
        response.call_on_close(opened.pop_all().close)
    return marked(response, replayed=replayed)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        yield from iter(lambda: file.read(READ_BYTES), b"")


def _seen_before(services: Services, key: Once) -> bool:
    """Say whether the key came before; that is unknown while Redis does not answer, as its lines will tell."""
    try:
        return key.seen_before(services.ledger)
    except MatchError:
        return False


def _outcomes(services: Services, arriving: Iterable[Sequence[Line]], terms: _Terms) -> Iterator[bytes]:
    """Return the outcomes of each block; where the body ends early, the last one has the reason."""
    last = 0
    try:
        for block in arriving:
            # What is beyond is read all the same: only then most clients read what became of the rest.
            if taken := [line for line in block if line.number <= LINES]:
                yield b"".join(_block(services, taken, terms))
            last = block[-1].number if block else last
        if last > LINES:
            yield _told(LINES + 1, refused(_wrong(f"a request has at most {LINES} lines", code="too_many_lines")))
    except RequestEntityTooLarge:
        error = _wrong(f"the body has more than {BODY_BYTES} bytes", code="too_large")
        yield _told(last + 1, refused(error))
    except ClientDisconnected:
        log.info("request %s: the body ended early, in line %d", terms.request_id, last + 1)
        yield _told(last + 1, refused(_wrong("the body ended early", code="truncated_body")))
    except Exception:
        log.exception("request %s broke", terms.request_id)
        yield _told(last + 1, refused(MatchError("internal error")))


def _block(services: Services, lines: Sequence[Line], terms: _Terms) -> Iterator[bytes]:
    entered = services.intake.accept_all(
        (_wanted(line, services.settings, terms) for line in lines),
        queue=BATCH_QUEUE,
        request_id=terms.request_id,
        task_ids=terms.key.task_ids([_place(line) for line in lines]),
    )
    for line, one in zip(lines, entered, strict=True):
        told = (
            accepted(one.task, "url", found=False, replayed=one.is_replay) if isinstance(one, Entry) else refused(one)
        )
        yield _told(line.number, told)


def _place(line: Line) -> int:
    """Return the line's place among those of its key: from 0 on, as in every other form of an add."""
    return line.number - 1


def _told(number: int, outcome: Outcome) -> bytes:
    # A name that a client made up may hold half of a surrogate pair, which has no UTF-8.
    text = json.dumps({"line": number, **outcome.to_json()}, ensure_ascii=False)
    return text.encode("utf-8", "replace") + b"\n"


def _wanted(line: Line, settings: Settings, terms: _Terms) -> Wanted | MatchError:
    if line.data is None:
        return _wrong(f"the line is longer than {LINE_BYTES} bytes", code="line_too_long")
    try:
        values = json.loads(line.data)
    except (ValueError, RecursionError):
        return _wrong("the line is not valid JSON")
    if not isinstance(values, dict):
        return _wrong("the line must be a JSON object")
    try:
        check_names(values, [requests.Line])
        found = parse(requests.Line, values, settings)
    except InputError as error:
        return error
    return Wanted(
        filepath=found.filepath,
        source=found.source,
        metadata=found.metadata,
        form="batch",
        callback=terms.callback,
        task_id=terms.key.task_id(_place(line)),
    )


def _wrong(message: str, *, code: str | None = None) -> InputError:
    return InputError(message, field="line", code=code)


ENDPOINTS = (
    Endpoint(
        name="batch",
        path="/add/batch",
        scope=Scope.WRITE,
        methods=("POST",),
        view=batch,
        reply=Reply(result=replies.LineOutcome, errors=(503,), keyed=True),
        takes=(requests.Batch,),
        line=requests.Line,
        body_bytes=BODY_BYTES,
    ),
)
