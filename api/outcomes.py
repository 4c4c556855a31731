"""Outcomes of adds as clients read them: of one image, and of one among many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.envelope import failure_of
from api.errors import INTERNAL_CODES
from common.errors import MatchError
from common.queue.items import AddItem
from common.queue.task_json import task_json
from common.queue.tasks import State
from common.warning_codes import warning_text


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one add; `http_status` is the status of a reply with this outcome only."""

    http_status: int
    status: str
    error: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as one of many."""
        return {"status": self.status, "error": self.error, **self.about}


def outcome_of(item: AddItem, *, searchable: bool = False, among_others: bool = False) -> Outcome:
    """Return the outcome of an item so far.

    `searchable`: searches find what its task stored. `among_others`: the outcome itself marks a replayed item, since
    the reply's header speaks of all items.
    """
    if item.error is not None:
        return rejected(item.error)
    task = item.task
    about: dict[str, Any] = {"task": task_json(task)}
    if among_others:
        about |= ({"batch": task.batch} if task.batch else {}) | ({"replayed": True} if item.is_replay else {})
    if task.state is State.FAILED:
        is_internal = task.code in INTERNAL_CODES
        failure = {"code": task.code or ""} | ({} if is_internal else {"field": item.parameter})
        return Outcome(500 if is_internal else 422, "fail", [task.error or ""], failure | about)
    if task.state in {State.SUPERSEDED, State.CANCELLED}:
        return Outcome(200, "warn", [f"the task was {task.state}"], about)
    http_status = 200 if task.state is State.SUCCEEDED and searchable else 202
    if task.warning is not None:
        return Outcome(http_status, "warn", [warning_text(task.warning)], {"code": task.warning} | about)
    return Outcome(http_status, "ok", (), about)


def rejected(error: MatchError) -> Outcome:
    """Return the outcome of an item that was not accepted."""
    failure = failure_of(error)
    about = {"code": failure.code, "field": failure.field, "retry_after": failure.retry_after}
    present = {name: value for name, value in about.items() if value is not None}
    return Outcome(failure.http_status, "fail", [failure.message], present)
