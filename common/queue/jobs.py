"""What is asked of the queue: jobs, their JSON, and the names of tasks and queues."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

ADD_TASK = "match.add"
# A message costs about as much as a signature, so work that nobody waits for travels together.
ADD_MANY_TASK = "match.add_many"
CHUNK = 50
# When the message was sent, in milliseconds since 1970 by Redis's clock.
SENT_HEADER = "match_sent"

SINGLE_QUEUE = "match"
BATCH_QUEUE = "match-batch"
# Single adds have somebody waiting for them: they are worked first.
QUEUES = (SINGLE_QUEUE, BATCH_QUEUE)


def front_of(queue: str) -> str:
    """Return the queue that is worked just before this one, for what has waited in it once already."""
    return f"{queue}-front"


# In this order.
WORKED_QUEUES = tuple(name for queue in QUEUES for name in (front_of(queue), queue))

Metadata = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a task came from: the id of its request, and the W3C traceparent of its trace; empty for none."""

    request_id: str = ""
    traceparent: str = ""


NOWHERE = Origin()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddJob:
    """One picture to be stored under `filepath`; from `url` or from `upload`, exactly one of them.

    `upload` is the claim check of bytes kept by `common.uploads`.
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
    """A job, and what its sender wants of its task.

    `host` is the one that the picture is downloaded from, in the form that `common.net.addresses.Target.host` has;
    empty for none. `callback` is the URL that is told of the end, in the form that `Target.url` has; empty for none.
    `task_id` is the task's, where the sender's own key names it: then `fingerprint` tells this order from others.
    """

    job: AddJob
    host: str = ""
    callback: str = ""
    task_id: str = ""
    fingerprint: str = ""
