"""Tasks: their states, their fields in the ledger, and the results that workers report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from common.collection_names import DEFAULT_COLLECTION
from common.queue.callbacks import ENDED_FIELDS, Callback, callback_of
from common.queue.jobs import NO_REQUEST, ImageSelection, Metadata, RequestContext


class Action(StrEnum):
    """The work of a task: to store an image, to delete a collection with its images, or to delete selected images."""

    ADD = "add"
    DELETE_COLLECTION = "delete_collection"
    DELETE_IMAGES = "delete_images"


class State(StrEnum):
    """The states of a task: pending → running → one of the others."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Error codes that earlier versions wrote; workers of an earlier version still write them during an upgrade.
FORMER_CODES = {"decoder_crashed": "image_ends_worker", "image_too_large_to_decode": "out_of_memory"}
NEW_CODES = {former: code for code, former in FORMER_CODES.items()}
# The fields of a task's hash that `task_from` reads, in order.
FIELDS = (*ENDED_FIELDS, "callback", "called", "next", "cause_code", "cause")
CLOSED_STATES = frozenset({State.SUCCEEDED, State.SUPERSEDED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The public state of a task.

    `seq` is its sequence number. `filepath` is empty for a deletion. Times are in milliseconds since
    1970 (UTC). `attempts` is the number of times that a worker began the task. `warning` is a code of
    `common.warning_codes`; None without one, and if an earlier version ended the task. `request_id` is the id of the
    request that created it, and `batch` that of its batch; None for a single add. `callback` is None for a request
    without a callback URL. `next_try` is the earliest time at which a task begins that waits for its host, and `cause`
    the last temporary fault, as code and text.
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
    warning: str | None = None
    request_id: str | None = None
    callback: Callback | None = None
    collection: str = DEFAULT_COLLECTION
    action: Action = Action.ADD
    batch: str | None = None
    next_try: int | None = None
    cause: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The job of one running task: an image from `url` or from `upload_id`, exactly one of them.

    A deletion has neither, and that of images has a `selection`. `deletions` are the images that later requests have
    deleted in the collection of an add. `is_collection_deleted`: a request after this one has deleted the
    collection. `unfinished` is the number of times that a worker began the task and neither ended nor returned it,
    including this one. `host` is the host of the download. With `has_slot`, the end of the download must be reported
    (`HostSlots.release`). `given_up` is the fault, as code and text, of a host that had faults for too long to try
    again. `replaces` is the sequence number of the only record that the image may replace; None for any.
    `is_batch_cancelled`: a client has cancelled the `batch` of the task.
    """

    task_id: str
    seq: int
    filepath: str
    url: str | None = None
    upload_id: str | None = None
    metadata: Metadata | None = None
    host: str | None = None
    has_slot: bool = False
    given_up: tuple[str, str] | None = None
    context: RequestContext = NO_REQUEST
    collection: str = DEFAULT_COLLECTION
    action: Action = Action.ADD
    batch: str | None = None
    is_collection_deleted: bool = False
    is_batch_cancelled: bool = False
    unfinished: int = 1
    replaces: int | None = None
    selection: ImageSelection | None = None
    deletions: Sequence[ImageSelection] = ()

    def result(self, state: State, *, code: str = "", error: str = "", warning: str = "") -> "TaskResult":
        """Return the result of this task."""
        return TaskResult(
            task_id=self.task_id, state=state, code=code, error=error, warning=warning, upload_id=self.upload_id
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """The final state of a task; a failed one has a `code` and an `error`. `upload_id` names its upload, if any.

    `warning` is a code of `common.warning_codes`; empty without a warning.
    """

    task_id: str
    state: State
    code: str = ""
    error: str = ""
    warning: str = ""
    upload_id: str | None = None

    @property
    def reason(self) -> str:
        """The code that explains the state, of a failure or a warning; empty without one."""
        return self.code or self.warning


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedTask:
    """An open task, its queue, and the time at which it was last enqueued (ms since 1970)."""

    task_id: str
    queue: str
    enqueued_at: int


class RetryRejected(StrEnum):
    """The reason why a task is not retried.

    TOO_LATE: the tombstone of a deletion that is newer than the task may be purged already. QUOTA: the collection has
    too many open tasks. BATCH_CANCELLED: a client has cancelled the batch of the task.
    """

    UNKNOWN = "unknown_task"
    NOT_FAILED = "not_failed"
    TOO_LATE = "too_late"
    UPLOAD_LOST = "upload_lost"
    QUOTA = "quota_exceeded"
    BATCH_CANCELLED = "batch_cancelled"


def queued_tasks(reply: Sequence[bytes], *, at: int) -> list[QueuedTask]:
    """Return the tasks of a script's reply, in which the id and the queue of each follow each other."""
    return [
        QueuedTask(task_id=task_id.decode(), queue=queue.decode(), enqueued_at=at)
        for task_id, queue in zip(reply[::2], reply[1::2], strict=True)
    ]


def task_of(task_id: str, fields: Mapping[str, str]) -> Task:
    """Return the task whose hash has these fields.

    >>> fields = {"state": "failed", "filepath": "cat.jpg", "seq": "1", "accepted": "0", "code": "image_ends_worker"}
    >>> task_of("1", fields).code
    'decoder_crashed'
    """

    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    code = fields.get("code", "")
    return Task(
        id=task_id,
        state=State(fields["state"]),
        filepath=fields["filepath"],
        seq=int(fields["seq"]),
        accepted=int(fields["accepted"]),
        started=number("started"),
        finished=number("finished"),
        attempts=number("attempts") or 0,
        code=NEW_CODES.get(code, code) or None,
        error=fields.get("error") or None,
        warning=fields.get("warning"),
        request_id=fields.get("request"),
        callback=callback_of(fields.get("called", "")) if "callback" in fields else None,
        collection=fields.get("collection", DEFAULT_COLLECTION),
        action=Action(fields.get("action", Action.ADD)),
        batch=fields.get("batch"),
        next_try=number("next"),
        cause=(fields["cause_code"], fields.get("cause", "")) if "cause_code" in fields else None,
    )


def task_from(task_id: str, values: Sequence[bytes | None]) -> Task:
    """Return the task whose hash has these values of FIELDS."""
    present = {name: value.decode() for name, value in zip(FIELDS, values, strict=True) if value is not None}
    return task_of(task_id, present)
