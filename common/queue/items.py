"""Items of an add: one row per image from the request to the ledger."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from common.collection_names import DEFAULT_COLLECTION
from common.errors import MatchError
from common.queue.jobs import SINGLE_QUEUE, ImageSelection, image_selection
from common.queue.tasks import Task
from common.spooled import Spooled


class NotEnqueued(StrEnum):
    """The reason why an item has no task.

    FULL: too many tasks are open. QUOTA: too many of its collection are. HOST: too many wait for its host. CANCELLED:
    its batch is cancelled.
    """

    FULL = "full"
    QUOTA = "quota"
    HOST = "host"
    CANCELLED = "cancelled"


class EnqueueStatus(StrEnum):
    """CREATED: a new task. EXISTING: the same item created the task before. CONFLICT: a different item created it."""

    CREATED = "created"
    EXISTING = "existing"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class EnqueueResult:
    """An item's task, new or existing.

    `queue` is the queue of its message. `fingerprint` is that of the item that created an existing task.
    """

    task: Task
    queue: str = SINGLE_QUEUE
    status: EnqueueStatus = EnqueueStatus.CREATED
    fingerprint: str = ""

    @property
    def is_replay(self) -> bool:
        """Return whether the task existed before."""
        return self.status is not EnqueueStatus.CREATED

    def compared(self, fingerprint: str) -> "EnqueueResult":
        """Return this existing task as the result of an item with this fingerprint."""
        return self if fingerprint == self.fingerprint else replace(self, status=EnqueueStatus.CONFLICT)


@dataclass(slots=True, kw_only=True, eq=False)
class AddItem:
    """An image to be stored under `filepath`, from `url` or from `file`, and its state on the way to the ledger.

    `number` is the item's position in its request, counted from 0, and `parameter` the one that named the image.
    `task_id` is set if the client's idempotency key determines it; `fingerprint` is then equal for equal items. `host`
    is the host of the download in the form of `common.net.addresses.Target.host`; empty for an upload. `upload_id` is
    the id of the bytes in `common.uploads`; `data` are the bytes while they are in memory.

    `replaces` is the sequence number of the only record that the image may replace; None for any. `selection` are the
    images of a deletion; None for an add.

    An item ends with a `result` or an `error`.
    """

    filepath: str = ""
    collection: str = DEFAULT_COLLECTION
    url: str | None = None
    file: Spooled | None = None
    data: bytes | None = None
    metadata: Mapping[str, Any] | None = None
    number: int = 0
    parameter: str = ""
    task_id: str = ""
    fingerprint: str = ""
    host: str = ""
    upload_id: str | None = None
    replaces: int | None = None
    selection: ImageSelection | None = None
    result: EnqueueResult | None = None
    error: MatchError | None = None

    @property
    def task(self) -> Task:
        """The task of an accepted item."""
        if self.result is None:
            raise ValueError("an item without a result has no task")
        return self.result.task

    @task.setter
    def task(self, task: Task) -> None:
        if self.result is not None:
            self.result = replace(self.result, task=task)

    @property
    def is_replay(self) -> bool:
        """Return whether the item's task existed before."""
        return self.result is not None and self.result.is_replay

    def job_json(self) -> str:
        """Return the fields that a worker needs as one JSON object; `job_of` parses it."""
        job: dict[str, Any] = {
            "filepath": self.filepath,
            "url": self.url,
            "upload": self.upload_id,
            "metadata": self.metadata,
        }
        if self.replaces is not None:
            job["replaces"] = self.replaces
        if self.selection is not None:
            job["selection"] = self.selection.to_json()
        return json.dumps(job, separators=(",", ":"), ensure_ascii=False)


def job_of(text: str | bytes) -> dict[str, Any]:
    """Parse the result of `AddItem.job_json`; the fields have the names of `AddItem` and `Claim`."""
    job = json.loads(text)
    return {
        "filepath": job["filepath"],
        "url": job["url"],
        "upload_id": job["upload"],
        "metadata": job["metadata"],
        "replaces": job.get("replaces"),
        "selection": image_selection(job["selection"]) if "selection" in job else None,
    }
