"""Adds of many images: groups of bounded size, each a request that can be sent again without adding twice."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from http import HTTPStatus
from uuid import uuid4

from match_client.errors import ConnectionLost, InvalidSource, MatchError, RequestRejected, Unavailable
from match_client.lost_replies import outcomes_of_request, wait_for_tasks
from match_client.results import Outcome
from match_client.sources import NewImage, Upload, Url, read
from match_client.transport import NDJSON, Backoff, Reply, Request, Transport

# The service's limit of images in a form.
MAX_UPLOADS = 100
# A lost connection makes the client send at most this number of lines again.
MAX_LINES = 200
INCOMPLETE = "incomplete_reply"
# Bounds the memory of a group; a larger image is sent in a group of its own.
MAX_GROUP_BYTES = 8 * 1024 * 1024


class Form(Enum):
    """The form of a request with many images; the same group has the same form whenever it is sent."""

    FORM = "/add"
    LINES = "/add/batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parameters that all images of a call share."""

    collection: str | None = None
    callback_url: str | None = None
    wait_s: float | None = None
    batch: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a group, by its number in the group."""

    filepath: str
    source: Url | Upload
    metadata: Mapping[str, object] | None = None

    @property
    def form(self) -> Form:
        """The form of its request."""
        return Form.LINES if isinstance(self.source, Url) else Form.FORM

    @property
    def size(self) -> int:
        """The approximate number of bytes that it adds to a request."""
        source = self.source.url.encode() if isinstance(self.source, Url) else self.source.data
        return len(source) + len(self.filepath) + len(json.dumps(self.metadata) if self.metadata else "")


def new_key() -> str:
    """Return a new idempotency key."""
    return uuid4().hex


def headers_of(key: str, *, wait_s: float | None) -> dict[str, str]:
    """Return the headers of an add: its idempotency key, and how long the reply may wait for its images."""
    return {"Idempotency-Key": key} | ({} if wait_s is None else {"Prefer": f"wait={round(wait_s)}"})


def _send(
    transport: Transport, items: Mapping[int, Item], form: Form, options: Options, key: str
) -> dict[int, Outcome]:
    """Send a group once, and return the outcome of each item. Raises Unavailable when outcomes are missing."""
    outcomes = _outcomes(transport.send_once(_request(items, form, options, key)), items, form)
    if outcomes.keys() != items.keys():
        raise Unavailable("the reply has no outcome for some images", code=INCOMPLETE)
    return outcomes


def add_all(transport: Transport, images: Iterable[NewImage], options: Options) -> Iterator[Outcome]:
    """Add images and yield their outcomes, in order; memory holds one group.

    An image that the service cannot accept now is sent again, as long as the service accepts others or answers within
    the transport's time.
    """
    for group in _groups(images):
        outcomes = dict(group.unreadable)
        outcomes |= accept(transport, group.items, group.form, options, key=new_key())
        for number in sorted(outcomes):
            yield replace(outcomes[number], number=group.first + number)


@dataclass(frozen=True, slots=True)
class _Group:
    """Images of one form; numbers count from `first`."""

    first: int
    form: Form
    items: dict[int, Item]
    unreadable: dict[int, Outcome]


def _groups(images: Iterable[NewImage]) -> Iterator[_Group]:
    """Yield groups of consecutive images within the limits."""
    first, form, size = 0, Form.FORM, 0
    items: dict[int, Item] = {}
    unreadable: dict[int, Outcome] = {}
    for number, image in enumerate(images):
        item = item_of(image, number)
        item_form, item_size = (item.form, item.size) if isinstance(item, Item) else (form, 0)
        limit = MAX_LINES if form is Form.LINES else MAX_UPLOADS
        is_full = number - first >= limit or size + item_size > MAX_GROUP_BYTES
        if number > first and (is_full or (items and item_form is not form)):
            yield _Group(first, form, items, unreadable)
            first, size, items, unreadable = number, 0, {}, {}
        form = item_form
        size += item_size
        if isinstance(item, Item):
            items[number - first] = item
        else:
            unreadable[number - first] = item
    if items or unreadable:
        yield _Group(first, form, items, unreadable)


def accept(
    transport: Transport,
    items: Mapping[int, Item],
    form: Form,
    options: Options,
    *,
    key: str,
    was_sent: bool = False,
) -> dict[int, Outcome]:
    """Send a group until the service has accepted or finally rejected each item, and return the outcomes.

    All requests have the same idempotency key, and items keep their numbers. So no item is accepted twice, also when
    another process sends the same group later. After a request without a reply, only the items are sent again that the
    service has no task of. `was_sent`: another process sent the group before.
    """
    outcomes: dict[int, Outcome] = {}
    # The outcomes of items whose reply was lost.
    unanswered: dict[int, Outcome] = {}
    left = items
    backoff = transport.backoff()
    is_unanswered = was_sent
    while left:
        try:
            if is_unanswered:
                unanswered |= _find(transport, left, options, key)
                is_unanswered = False
                left = {number: item for number, item in left.items() if number not in unanswered}
                continue
            outcomes |= _send(transport, left, form, options, key)
        except (ConnectionLost, Unavailable) as error:
            is_unanswered = is_unanswered or _may_have_executed(error)
            backoff.wait_after(error)
            continue
        except RequestRejected as error:
            if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise
            return outcomes | unanswered | _split(transport, left, form, options, key=key, error=error)
        rejected = {number: item for number, item in left.items() if outcomes[number].retry_after is not None}
        if rejected:
            _wait(backoff, outcomes, rejected, has_progress=len(rejected) < len(left))
        left = rejected
    return outcomes | wait_for_tasks(transport, unanswered, wait_s=options.wait_s or 0)


def _find(transport: Transport, items: Mapping[int, Item], options: Options, key: str) -> dict[int, Outcome]:
    """Return the outcomes of the items that the service accepted without a reply."""
    filepaths = {number: item.filepath for number, item in items.items()}
    return outcomes_of_request(transport, filepaths, request_id=key, batch=options.batch, collection=options.collection)


def _may_have_executed(error: MatchError) -> bool:
    """Return whether the service may have executed the request that failed: it, or a proxy, gave no whole reply."""
    is_from_proxy = error.status in {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
    return isinstance(error, ConnectionLost) or is_from_proxy or error.code == INCOMPLETE


def _split(
    transport: Transport, items: Mapping[int, Item], form: Form, options: Options, *, key: str, error: MatchError
) -> dict[int, Outcome]:
    """Send the halves of a group whose body is too large for the service."""
    if len(items) == 1:
        [(number, item)] = items.items()
        return {number: _failed(number, item.filepath, error)}
    numbers = sorted(items)
    middle = len(numbers) // 2
    halves = ({number: items[number] for number in half} for half in (numbers[:middle], numbers[middle:]))
    return {
        number: outcome
        for half in halves
        for number, outcome in accept(transport, half, form, options, key=key).items()
    }


def _wait(backoff: Backoff, outcomes: Mapping[int, Outcome], rejected: Iterable[int], *, has_progress: bool) -> None:
    """Wait before the rejected items are sent again; raise the error of one if the service accepts nothing."""
    if has_progress:
        backoff.reset()
    last = max((outcomes[number] for number in rejected), key=lambda outcome: outcome.retry_after or 0.0)
    backoff.wait_after(
        Unavailable(
            "; ".join(last.errors), code=last.code or "overloaded", field=last.field, retry_after=last.retry_after
        )
    )


def _failed(number: int, filepath: str, error: MatchError) -> Outcome:
    """Return the outcome of an image with an error of its own."""
    return Outcome(
        number=number, filepath=filepath, status="fail", errors=(str(error),), code=error.code, field=error.field
    )


def item_of(image: NewImage, number: int) -> Item | Outcome:
    """Return the image as it is sent, or the outcome of one that cannot be read."""
    try:
        return Item(image.filepath, read(image.image), image.metadata)
    except InvalidSource as error:
        return _failed(number, image.filepath, error)


def _request(items: Mapping[int, Item], form: Form, options: Options, key: str) -> Request:
    # The tasks of a request without a reply are listed by its id.
    headers = headers_of(key, wait_s=options.wait_s) | {"X-Request-ID": key}
    if options.batch is not None:
        headers["X-Batch-ID"] = options.batch
    shared = {} if options.callback_url is None else {"callback_url": options.callback_url}
    if options.collection is not None:
        shared["collection"] = options.collection
    if form is Form.LINES:
        return Request(
            method="POST",
            path=form.value,
            query=shared,
            body=_lines(items),
            content_type=NDJSON,
            headers=headers,
        )
    return Request(
        method="POST",
        path=form.value,
        form=_fields(items) | shared,
        files=[
            (f"images[{number}]", ("image", item.source.data))
            for number, item in items.items()
            if isinstance(item.source, Upload)
        ],
        headers=headers,
        has_outcomes=True,
    )


def _fields(items: Mapping[int, Item]) -> dict[str, str]:
    fields = {f"filepaths[{number}]": item.filepath for number, item in items.items()}
    for number, item in items.items():
        if isinstance(item.source, Url):
            fields[f"urls[{number}]"] = item.source.url
        if item.metadata is not None:
            fields[f"metadata[{number}]"] = json.dumps(item.metadata)
    return fields


def _lines(items: Mapping[int, Item]) -> bytes:
    """Return a line for each number; a number without an item has a blank line."""
    lines = [b""] * (max(items) + 1)
    for number, item in items.items():
        if not isinstance(item.source, Url):
            raise TypeError("a line has a URL, not the bytes of an image")
        line: dict[str, object] = {"url": item.source.url, "filepath": item.filepath}
        if item.metadata is not None:
            line["metadata"] = item.metadata
        lines[number] = json.dumps(line).encode()
    return b"\n".join(lines) + b"\n"


def _outcomes(reply: Reply, items: Mapping[int, Item], form: Form) -> dict[int, Outcome]:
    """Return the outcomes by number; a body that ended early has none for its rest."""
    results: Sequence[dict[str, object]]
    if form is Form.LINES:
        results = [json.loads(line) for line in reply.body.splitlines()]
        numbered = {int(str(result["line"])) - 1: result for result in results}
    else:
        results = reply.result
        numbered = {int(str(result["item"])): result for result in results}
    return {
        number: Outcome.from_json(result, number=number, filepath=items[number].filepath)
        for number, result in numbered.items()
        if number in items and result.get("code") != "truncated_body"
    }
