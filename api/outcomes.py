"""What became of adds, as clients read it: of one alone, and of one among many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.envelope import failure_of
from common.errors import MatchError, StoreError
from common.queue.task_json import task_json
from common.queue.tasks import State, Task

# The codes of failures that no other picture would have prevented.
OUR_FAULTS = {"internal_error", StoreError.code}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one add; `http_status` is its reply's, were it alone."""

    http_status: int
    status: str
    error: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as clients read it among others."""
        return {"status": self.status, "error": self.error, **self.about}


def refused(error: MatchError) -> Outcome:
    """Return the outcome of what was not accepted."""
    failure = failure_of(error)
    about = {"code": failure.code, "field": failure.field, "retry_after": failure.retry_after}
    told = {name: value for name, value in about.items() if value is not None}
    return Outcome(failure.http_status, "fail", [failure.message], told)


def accepted(task: Task, parameter: str, *, found: bool, replayed: bool = False) -> Outcome:
    """Return the outcome of a task, as far as it has come.

    `parameter` is that by which its picture came; `found` says whether searches find what is stored by now,
    `replayed` whether the task was accepted before.
    """
    about: dict[str, Any] = {"task": task_json(task)} | ({"replayed": True} if replayed else {})
    if task.state is State.FAILED:
        ours = task.code in OUR_FAULTS
        told = {"code": task.code or ""} | ({} if ours else {"field": parameter})
        return Outcome(500 if ours else 422, "fail", [task.error or ""], told | about)
    if task.state in {State.SUPERSEDED, State.CANCELLED}:
        return Outcome(200, "warn", [f"the task was {task.state}"], about)
    return Outcome(200 if task.state is State.SUCCEEDED and found else 202, "ok", (), about)
