"""Names of the Celery tasks and queues, and the context that all tasks of one request share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from common.collection_names import DEFAULT_COLLECTION

ADD_TASK = "match.add"
# A message costs about as much CPU as a signature, so tasks share messages: those of a batch, and single adds that
# arrive at once.
ADD_MANY_TASK = "match.add_many"
CHUNK = 50
# Of single adds, whose clients wait. A worker reserves a message for each of its threads.
SINGLE_CHUNK = 10
# Header with the time of enqueueing, in milliseconds since 1970 by Redis's clock.
ENQUEUED_AT_HEADER = "match_sent"
# Property of an unacknowledged message with the name of the worker that has received it.
WORKER_PROPERTY = "match_worker"

SINGLE_QUEUE = "match"
# The first of the batch queues. Earlier versions have only this one, so its name stays.
BATCH_QUEUE = "match-batch"
# Batches of different collections wait in different queues, which workers consume in turn.
BATCH_QUEUES = (BATCH_QUEUE, *(f"{BATCH_QUEUE}-{number}" for number in range(1, 8)))
# Clients wait for single adds: they are consumed first.
QUEUES = (SINGLE_QUEUE, *BATCH_QUEUES)


def first_batch_queue(collection: str) -> int:
    """Return the index of the batch queue that a collection takes first, if several are equally short."""
    return 0 if collection == DEFAULT_COLLECTION else crc32(collection.encode()) % len(BATCH_QUEUES)


def front_queue(queue: str) -> str:
    """Return the queue that is consumed just before this one, for tasks that have waited in this one already."""
    return f"{queue}-front"


# In the order of consumption; workers rotate the batch queues.
CONSUMED_QUEUES = tuple(name for queue in QUEUES for name in (front_queue(queue), queue))

Metadata = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSelection:
    """The images of a collection that a deletion selects: by the start of their filepaths, and by metadata."""

    filepath_prefix: str = ""
    where: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the form in which jobs have it."""
        return {"filepath_prefix": self.filepath_prefix, "where": dict(self.where)}


def image_selection(value: Mapping[str, Any]) -> ImageSelection:
    """Parse the result of `ImageSelection.to_json`, which may have more keys."""
    return ImageSelection(filepath_prefix=value["filepath_prefix"], where=value["where"])


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """The context that all items of one request share; an empty string stands for an absent value.

    `traceparent` is a W3C traceparent. `form` names the form of the request; it is part of the items' fingerprints.
    `callback_url` is in the form of `common.net.addresses.Target.url`.
    """

    request_id: str = ""
    traceparent: str = ""
    form: str = ""
    callback_url: str = ""


NO_REQUEST = RequestContext()
