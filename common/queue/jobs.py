"""Names of the queue's tasks and queues, and what the tasks of one request share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
class RequestContext:
    """What the items of one request have in common: ids of request and trace, form, and callback URL; empty for none.

    `traceparent` is a W3C traceparent. `form` names the form of the request; it is part of the items' fingerprints.
    `callback_url` is in the form that `common.net.addresses.Target.url` has.
    """

    request_id: str = ""
    traceparent: str = ""
    form: str = ""
    callback_url: str = ""


NO_REQUEST = RequestContext()
