"""Adding pictures, one or many in a request."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic

from flask import Response, g

from api import callbacks, replies
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import reply
from api.forms import requests
from api.forms.reading import parse
from api.outcomes import Outcome, accepted, refused
from api.services import Services
from api.work.idempotency import Once, marked, once
from api.work.intake import Wanted
from common.config import Settings
from common.errors import InputError, MatchError, StoreError
from common.queue.jobs import SINGLE_QUEUE
from common.queue.tasks import Entry, State, Task

ACCEPTED = 202


def add(services: Services, given: requests.Add | requests.AddMany) -> Response:
    """Accept pictures to be stored; with `wait`, answer when they are.

    One picture comes by `image` or `url`. Many have numbers: what has the same number belongs together, the result has
    an outcome each, in order, and one that is wrong never costs the others. The reply is 202 while a picture is on its
    way, and 200 when all that was accepted has ended: what is stored is found by searches then.
    """
    return _add_one(services, given) if isinstance(given, requests.Add) else _add_many(services, given)


def _add_one(services: Services, given: requests.Add) -> Response:
    wanted = Wanted(
        filepath=given.filepath,
        source=given.source,
        metadata=given.metadata,
        form="one",
        callback=callbacks.checked(services, given.callback_url),
        task_id=once(given.idempotency_key).task_id(0),
    )
    entry = services.intake.accept(wanted, request_id=g.request_id)
    [task] = _wait(services, [entry.task], given)
    outcome = accepted(task, given.source.field, found=_found(services, [task]))
    response = reply(outcome.http_status, outcome.status, outcome.error, **outcome.about)
    response.headers["Location"] = f"/tasks/{task.id}"
    return marked(response, replayed=entry.is_replay)


def _add_many(services: Services, given: requests.AddMany) -> Response:
    """Answer with an outcome each; an item that is wrong costs the others nothing."""
    with services.batching.passage():
        key, callback = once(given.idempotency_key), callbacks.checked(services, given.callback_url)
        entered = services.intake.accept_all(
            _wanted(given, services.settings, key, callback),
            queue=SINGLE_QUEUE,
            request_id=g.request_id,
            task_ids=key.task_ids([*given.items()]),
        )
    entries = [one for one in entered if isinstance(one, Entry)]
    tasks = _wait(services, [one.task for one in entries], given)
    found, ended = _found(services, tasks), iter(tasks)
    outcomes = {
        number: accepted(next(ended), given.picture(number), found=found, replayed=one.is_replay)
        if isinstance(one, Entry)
        else refused(one)
        for number, one in zip(given.items(), entered, strict=True)
    }
    replayed = bool(entries) and all(one.is_replay for one in entries)
    return marked(_summary(outcomes), replayed=replayed)


def _wanted(given: requests.AddMany, settings: Settings, key: Once, callback: str) -> Iterator[Wanted | MatchError]:
    """Read the items one after another, so that one picture is held at a time."""
    for number, values in given.items().items():
        try:
            item = parse(requests.Item, values, settings, shown=partial(given.shown, number=number))
        except InputError as error:
            yield error
        else:
            source = replace(item.source, field=given.picture(number))
            yield Wanted(
                filepath=item.filepath,
                source=source,
                metadata=item.metadata,
                form="many",
                callback=callback,
                task_id=key.task_id(number),
            )


def _summary(outcomes: Mapping[int, Outcome]) -> Response:
    """Reply with all outcomes; the request itself fails only where nothing at all came of it."""
    result = [{"item": number, **outcome.to_json()} for number, outcome in outcomes.items()]
    trouble = [f"item {number}: {text}" for number, outcome in outcomes.items() for text in outcome.error]
    if all(outcome.status == "fail" for outcome in outcomes.values()):
        worst = max(outcomes.values(), key=lambda outcome: outcome.http_status)
        return reply(worst.http_status, "fail", trouble, result, code=worst.about["code"])
    going_on = any(outcome.http_status == ACCEPTED for outcome in outcomes.values())
    return reply(ACCEPTED if going_on else 200, "warn" if trouble else "ok", trouble, result)


def _wait(services: Services, tasks: Sequence[Task], given: requests.Waiting) -> list[Task]:
    """Return the tasks when they have ended, or as they are when the time or our room for waiting ran out."""
    ended = list(tasks)
    wait_s = given.wait or _preferred_s(given.prefer or "", services.settings.max_wait_s)
    if not wait_s:
        return ended
    deadline = monotonic() + wait_s
    # They are accepted whatever becomes of the waiting: their sender gets the 202 that says so.
    with suppress(MatchError), services.waiting.passage():
        for place, task in enumerate(tasks):
            left = max(0.0, deadline - monotonic())
            ended[place] = services.waiters.wait(task.id, timeout_s=left) or task
    return ended


def _preferred_s(preferences: str, most_s: float) -> float:
    """Return the seconds of `Prefer: wait=N`, as far as we grant them; a preference is never an error (RFC 7240)."""
    for preference in preferences.split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait" and value.strip().isdecimal():
            return min(float(value), most_s)
    return 0.0


def _found(services: Services, tasks: Sequence[Task]) -> bool:
    """Say whether searches find what these tasks stored; that cannot be said while the store does not answer."""
    if not any(task.state is State.SUCCEEDED for task in tasks):
        return False
    try:
        services.store.refresh()
    except StoreError:
        return False
    return True


ENDPOINTS = (
    Endpoint(
        name="add",
        path="/add",
        scope=Scope.WRITE,
        methods=("POST",),
        view=add,
        takes=(requests.Add, requests.AddMany),
        reply=Reply(
            result=replies.ItemOutcome,
            added={"task": replies.OneTask},
            statuses=(200, 202),
            errors=(409, 422, 503),
            keyed=True,
        ),
        # Room for a hundred that are small, or for four of the largest.
        pictures=4,
        items=requests.ADD_MOST,
    ),
)
