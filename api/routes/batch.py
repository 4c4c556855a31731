"""POST /add/batch: thousands of images in one request, one JSON object and one outcome per line."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO

from flask import Response, request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from api import replies
from api.access.collections import check_allowed
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.errors import ERRORS
from api.forms import requests
from api.forms.lines import Line, blocks
from api.forms.reading import LINE_TYPES, check_names, parse
from api.outcomes import Outcome, outcome_of, rejected
from api.routes.context import request_batches, request_context
from api.routes.replay import idempotency_key, mark_replay
from api.services import Services
from api.usage import count_adds
from api.use_cases.idempotency import IdempotencyKey
from api.use_cases.request_batches import RequestBatches
from common.config import Settings
from common.errors import InputError, MatchError
from common.queue.items import AddItem
from common.queue.jobs import BATCH_QUEUE, RequestContext

log = logging.getLogger(__name__)

BODY_BYTES = 256 * 1024 * 1024
# The largest URL, filepath and metadata with each byte written as an escape.
LINE_BYTES = 512 * 1024
LINES = 100_000
# Outcomes are kept in memory up to this size, then in a file: about a thousand, more than most batches have.
MEMORY_BYTES = 256 * 1024
READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Batch:
    """The context that all lines of a request share."""

    services: Services
    context: RequestContext
    key: IdempotencyKey
    collection: str
    batches: RequestBatches

    def outcomes(self, blocks: Iterable[Sequence[Line]]) -> Iterator[bytes]:
        """Yield the outcomes of each block of lines; a body that ends early has a last outcome with the reason."""
        last = 0
        try:
            for block in blocks:
                # Lines above the limit are read too: most clients read the reply only after they sent their last line.
                if lines := [line for line in block if line.number <= LINES]:
                    yield b"".join(self._block(lines))
                last = block[-1].number if block else last
            if last > LINES:
                yield _rejected(LINES + 1, _wrong(f"a request has at most {LINES} lines", code="too_many_lines"))
        except RequestEntityTooLarge:
            yield _rejected(last + 1, _wrong(f"the body has more than {BODY_BYTES} bytes", code="too_large"))
        except ClientDisconnected:
            log.info("request %s: the body ended early, in line %d", self.context.request_id, last + 1)
            yield _rejected(last + 1, _wrong(ERRORS["truncated_body"].text, code="truncated_body"))
        except Exception:
            log.exception("request %s failed", self.context.request_id)
            yield _rejected(last + 1, MatchError(ERRORS["internal_error"].text))

    def _block(self, lines: Sequence[Line]) -> Iterator[bytes]:
        items = self.services.add_images.enqueue(
            (self._item(line) for line in lines),
            self.context,
            queue=BATCH_QUEUE,
            key=self.key,
            numbers=[_item_number(line) for line in lines],
            batches=self.batches,
        )
        count_adds(items)
        return (_encode(item.number + 1, outcome_of(item, among_others=True)) for item in items)

    def _item(self, line: Line) -> AddItem:
        number = _item_number(line)
        try:
            values = _parse(line, self.services.settings)
            collection = values.collection or self.collection
            check_allowed(collection)
        except InputError as error:
            return AddItem(number=number, error=error)
        return AddItem(
            number=number,
            parameter="url",
            collection=collection,
            filepath=values.filepath,
            url=values.source.url,
            metadata=values.metadata,
        )


def batch(services: Services, params: requests.Batch) -> Response:
    """Accept images by URL, one JSON object per line, and answer with one outcome per line.

    The body has up to 100,000 lines. The reply starts after the end of the body: one outcome per line, in order, with
    the number of its line. A line that cannot be accepted now has a `retry_after` in seconds. Accepted lines stay
    accepted if the connection breaks. A request that is sent again with the same `Idempotency-Key` finds the tasks of
    the lines that were accepted, `replayed`, and accepts the others.
    """
    context = request_context(services, params, form="batch")
    key = idempotency_key(params.idempotency_key)
    with ExitStack() as resources:
        # Both are held until the reply is sent or the client has disconnected.
        resources.enter_context(services.batch_limit.acquire())
        # Sent earlier, outcomes would fill the buffers of a client that reads nothing before its last line is sent.
        outcomes = resources.enter_context(SpooledTemporaryFile(max_size=MEMORY_BYTES))
        replayed = _is_replay(services, key)
        lines = blocks(request.stream, content_length=request.content_length, max_bytes=LINE_BYTES)
        batches = request_batches(services, params, collection=params.collection, context=context, key=key)
        with batches.joined():
            # Not writelines(), which on Python 3.11 keeps everything in memory.
            for block in _Batch(services, context, key, params.collection, batches).outcomes(lines):
                outcomes.write(block)
        size = outcomes.tell()
        outcomes.seek(0)
        response = Response(chunks(outcomes), mimetype=LINE_TYPES[0])
        response.content_length = size
        response.headers.update(batches.headers)
        response.call_on_close(resources.pop_all().close)
    return mark_replay(response, replayed=replayed)


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a file, and close it."""
    with file:
        yield from iter(lambda: file.read(READ_BYTES), b"")


def _is_replay(services: Services, key: IdempotencyKey) -> bool:
    """Return whether the key was used before; False while Redis does not answer, as the outcomes will show."""
    try:
        return key.is_replay(services.leases)
    except MatchError:
        return False


def _item_number(line: Line) -> int:
    """Return the number of the line's item, counted from 0 as in every other form of an add."""
    return line.number - 1


def _parse(line: Line, settings: Settings) -> requests.Line:
    if line.data is None:
        raise _wrong(f"the line is longer than {LINE_BYTES} bytes", code="line_too_long")
    try:
        values = json.loads(line.data)
    except (ValueError, RecursionError):
        raise _wrong("the line is not valid JSON") from None
    if not isinstance(values, dict):
        raise _wrong("the line must be a JSON object")
    check_names(values, [requests.Line])
    return parse(requests.Line, values, settings)


def _rejected(number: int, error: MatchError) -> bytes:
    return _encode(number, rejected(error))


def _encode(number: int, outcome: Outcome) -> bytes:
    # A client's parameter name may hold half of a surrogate pair, which has no UTF-8.
    text = json.dumps({"line": number, **outcome.to_json()}, ensure_ascii=False)
    return text.encode("utf-8", "replace") + b"\n"


def _wrong(message: str, *, code: str | None = None) -> InputError:
    return InputError(message, field="line", code=code)


ENDPOINTS = (
    Endpoint(
        name="batch",
        path="/add/batch",
        scope=Scope.WRITE,
        methods=("POST",),
        view=batch,
        reply=Reply(result=replies.LineOutcome, errors=(503,)),
        parameters=(requests.Batch,),
        line=requests.Line,
        body_bytes=BODY_BYTES,
    ),
)
