"""Jobs, their JSON, and the names of tasks and queues."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

ADD_TASK = "match.add"
# A message costs about as much as a signature, so the tasks of a batch, for which nobody waits, share messages.
ADD_MANY_TASK = "match.add_many"
CHUNK = 50
# When the message was enqueued, in milliseconds since 1970 by Redis's clock.
SENT_HEADER = "match_sent"

SINGLE_QUEUE = "match"
BATCH_QUEUE = "match-batch"
# Clients wait for single adds: they are consumed first.
QUEUES = (SINGLE_QUEUE, BATCH_QUEUE)


def front_of(queue: str) -> str:
    """Return the queue that is consumed just before this one, for tasks that have waited in it once already."""
    return f"{queue}-front"


# In this order.
WORKED_QUEUES = tuple(name for queue in QUEUES for name in (front_of(queue), queue))

Metadata = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The id of a task's request, and the W3C traceparent of its trace; empty for none."""

    request_id: str = ""
    traceparent: str = ""


NOWHERE = Origin()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddJob:
    """An image to be stored under `filepath`, from `url` or from `upload`, exactly one of them.

    `upload` is the id of an upload in `common.uploads`.
    """

    filepath: str
    url: str | None = None
    upload: str | None = None
    metadata: Metadata | None = None

    def to_json(self) -> str:
        """Return the job as one JSON object."""
        return json.dumps(
            {"filepath": self.filepath, "url": self.url, "upload": self.upload, "metadata": self.metadata},
            separators=(",", ":"),
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A job, and how its sender wants it done.

    `host` is the one that the image is downloaded from, in the form of `common.net.addresses.Target.host`; empty for
    none. `callback` is the URL to call when the task has ended, in the form of `Target.url`; empty for none. `task_id`
    is the task's id, where it follows from the sender's key: then `fingerprint` distinguishes this order from others.
    """

    job: AddJob
    host: str = ""
    callback: str = ""
    task_id: str = ""
    fingerprint: str = ""
