"""POST /add: one image or many in a form."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from flask import Response
from werkzeug.http import parse_list_header, unquote_header_value

from api import replies
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import reply
from api.forms import requests
from api.forms.reading import parse
from api.outcomes import Outcome, outcome_of
from api.routes.context import request_batches, request_context
from api.routes.replay import idempotency_key, mark_replay
from api.services import Services
from api.usage import count_adds
from common.config import Settings
from common.errors import InputError, MatchError, StoreError
from common.queue.items import AddItem
from common.queue.jobs import SINGLE_QUEUE
from common.queue.tasks import State

ACCEPTED = 202


def add(services: Services, params: requests.Add | requests.AddMany) -> Response:
    """Accept images to be stored; with `wait`, answer when they are stored.

    One image is in `image` or `url`. Many are indexed: parameters with the same index belong together. The result has
    one outcome per item, in order, and an invalid item does not fail the others. The reply is 202 while a task is
    open, and 200 when all accepted tasks have ended: searches find the stored images then. An image without features
    is stored with `warn` and the code `featureless`, and no search finds it.
    """
    return _add_one(services, params) if isinstance(params, requests.Add) else _add_many(services, params)


def _add_one(services: Services, params: requests.Add) -> Response:
    context = request_context(services, params, form="one")
    key = idempotency_key(params.idempotency_key)
    item = _item(params, collection=params.collection)
    items = services.add_images.enqueue([item], context, queue=SINGLE_QUEUE, key=key, numbers=[0])
    if item.error is not None:
        raise item.error
    count_adds(items)
    searchable = _wait(services, items, params)
    outcome = outcome_of(item, searchable=searchable)
    response = reply(outcome.http_status, outcome.status, outcome.error, **outcome.about)
    response.headers["Location"] = f"/tasks/{item.task.id}"
    return mark_replay(response, replayed=item.is_replay)


def _add_many(services: Services, params: requests.AddMany) -> Response:
    """Answer with one outcome per item."""
    context = request_context(services, params, form="many")
    key = idempotency_key(params.idempotency_key)
    batches = request_batches(services, params, collection=params.collection, context=context, key=key)
    with services.batch_limit.acquire(), batches.joined():
        items = services.add_images.enqueue(
            _items(params, services.settings),
            context,
            queue=SINGLE_QUEUE,
            key=key,
            numbers=params.items(),
            batches=batches,
        )
    count_adds(items)
    searchable = _wait(services, items, params)
    outcomes = {item.number: outcome_of(item, searchable=searchable, among_others=True) for item in items}
    accepted = [item for item in items if item.error is None]
    response = _summary(outcomes)
    response.headers.update(batches.headers)
    return mark_replay(response, replayed=bool(accepted) and all(item.is_replay for item in accepted))


def _items(params: requests.AddMany, settings: Settings) -> Iterator[AddItem]:
    """Parse the items one after another, so that one upload is in memory at a time."""
    for number, values in params.items().items():
        parameter = params.source_of(number)
        try:
            item = parse(requests.Item, values, settings, shown=partial(params.shown, number=number))
        except InputError as error:
            yield AddItem(number=number, parameter=parameter, error=error)
        else:
            yield _item(item, collection=params.collection, number=number, parameter=parameter)


def _item(params: requests.Item, *, collection: str, number: int = 0, parameter: str = "") -> AddItem:
    return AddItem(
        collection=collection,
        number=number,
        parameter=parameter or params.source.field,
        filepath=params.filepath,
        url=params.source.url,
        file=params.source.file,
        metadata=params.metadata,
    )


def _summary(outcomes: Mapping[int, Outcome]) -> Response:
    """Reply with all outcomes; the request fails only if every item failed."""
    result = [{"item": number, **outcome.to_json()} for number, outcome in outcomes.items()]
    errors = [f"item {number}: {text}" for number, outcome in outcomes.items() for text in outcome.error]
    if all(outcome.status == "fail" for outcome in outcomes.values()):
        worst = max(outcomes.values(), key=lambda outcome: outcome.http_status)
        return reply(worst.http_status, "fail", errors, result, code=worst.about["code"])
    is_open = any(outcome.http_status == ACCEPTED for outcome in outcomes.values())
    return reply(ACCEPTED if is_open else 200, "warn" if errors else "ok", errors, result)


def _wait(services: Services, items: Sequence[AddItem], params: requests.Waiting) -> bool:
    """Wait for the items' tasks as long as the request asks for; return whether searches find what they stored."""
    accepted = [item for item in items if item.error is None]
    preferred_s = _preferred_s(params.prefer or "", services.settings.max_wait_s)
    wait_s = preferred_s if params.wait is None else params.wait
    if wait_s:
        # The tasks are accepted even if the wait fails: the client gets a 202.
        with suppress(MatchError), services.wait_limit.acquire():
            tasks = services.task_waiter.wait_each([item.task for item in accepted], timeout_s=wait_s)
            for item, task in zip(accepted, tasks, strict=True):
                item.task = task
    if not any(item.task.state is State.SUCCEEDED for item in accepted):
        return False
    try:
        services.store.refresh()
    except StoreError:
        return False
    return True


def _preferred_s(preferences: str, max_s: float) -> float:
    """Return the seconds of `Prefer: wait=N`, at most `max_s`; an invalid preference is ignored (RFC 7240)."""
    for preference in parse_list_header(preferences):
        name, _, value = preference.partition("=")
        seconds = unquote_header_value(value.strip())
        if name.strip().lower() == "wait" and seconds.isdecimal():
            return min(float(seconds), max_s)
    return 0.0


ENDPOINTS = (
    Endpoint(
        name="add",
        path="/add",
        scope=Scope.WRITE,
        methods=("POST",),
        view=add,
        parameters=(requests.Add, requests.AddMany),
        reply=Reply(
            result=replies.ItemOutcome,
            extra={"task": replies.OneTask, "code": replies.WarningCode},
            statuses=(200, 202),
            errors=(409, 422, 503),
        ),
        # Capacity for a hundred small images, or four of the largest.
        images=4,
        items=requests.MAX_ADDS,
    ),
)
