"""What a task is: its states, and what the ledger tells of it and is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from common.queue.callbacks import ENDED_FIELDS, Callback, callback_of
from common.queue.jobs import NOWHERE, AddJob, Origin


class State(StrEnum):
    """The life of a task: pending → running → one of the rest."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# The fields of a task's hash that `task_from` reads, in order.
FIELDS = (*ENDED_FIELDS, "callback", "called")
CLOSED_STATES = frozenset({State.SUCCEEDED, State.SUPERSEDED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as a client sees it.

    Times are in milliseconds since 1970 (UTC); `attempts` counts how often a worker began it; `request_id` names the
    request that brought it; `callback` is how far the call is that tells its sender of the end, where one is wanted.
    """

    id: str
    state: State
    filepath: str
    seq: int
    accepted: int
    started: int | None = None
    finished: int | None = None
    attempts: int = 0
    code: str | None = None
    error: str | None = None
    request_id: str | None = None
    callback: Callback | None = None


class Entered(StrEnum):
    """What became of an order: a new task, or one that was there under its id, for the same or for another order."""

    NEW = "new"
    SAME = "same"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Entry:
    """An order's task, and how it came to be."""

    task: Task
    entered: Entered = Entered.NEW

    @property
    def is_replay(self) -> bool:
        """Say whether the task was there already."""
        return self.entered is not Entered.NEW


@dataclass(frozen=True, slots=True)
class Known:
    """A task that was entered by an id of its sender's, and the fingerprint of what was ordered."""

    task: Task
    fingerprint: str

    def entry(self, fingerprint: str) -> Entry:
        """Return what becomes of an order with this id and fingerprint."""
        return Entry(self.task, Entered.SAME if fingerprint == self.fingerprint else Entered.OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a worker needs to do the work of one task; `host` is where it has a place that it must leave, if any."""

    task_id: str
    seq: int
    job: AddJob
    host: str | None = None
    origin: Origin = NOWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The end of a task; a failed one has a `code` and an `error`."""

    task_id: str
    state: State
    code: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An open task and when its message was last sent (ms since 1970), and to which queue."""

    task_id: str
    queue: str
    at: int


class Refusal(StrEnum):
    """Why a task is not worked on again.

    `TOO_LATE`: it was accepted so long ago that a deletion which outranks it may be forgotten by now.
    """

    UNKNOWN = "unknown_task"
    NOT_FAILED = "not_failed"
    TOO_LATE = "too_late"
    UPLOAD_LOST = "upload_lost"


def task_of(task_id: str, fields: Mapping[str, str]) -> Task:
    """Return the task that these fields of its hash tell of."""

    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    return Task(
        id=task_id,
        state=State(fields["state"]),
        filepath=fields["filepath"],
        seq=int(fields["seq"]),
        accepted=int(fields["accepted"]),
        started=number("started"),
        finished=number("finished"),
        attempts=number("attempts") or 0,
        code=fields.get("code") or None,
        error=fields.get("error") or None,
        request_id=fields.get("request"),
        callback=callback_of(fields.get("called", "")) if "callback" in fields else None,
    )


def task_from(task_id: str, values: Sequence[bytes | None]) -> Task:
    """Return the task whose hash has these values of FIELDS."""
    present = {name: value.decode() for name, value in zip(FIELDS, values, strict=True) if value is not None}
    return task_of(task_id, present)
