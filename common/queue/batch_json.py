"""The JSON of a batch, in responses and in callbacks."""

from typing import Any

from common.queue.batches import Batch
from common.queue.task_json import callback_json
from common.times import iso


def batch_json(batch: Batch) -> dict[str, Any]:
    """Return the JSON of a batch; times are ISO 8601 in UTC."""
    fields = {
        "id": batch.id,
        "state": batch.state,
        "collection": batch.collection,
        "total": batch.total,
        "pending": batch.pending,
        "running": batch.running,
        "succeeded": batch.succeeded,
        "superseded": batch.superseded,
        "failed": batch.failed,
        "cancelled": batch.cancelled,
        "failures": dict(batch.failures),
        "accepted": iso(batch.accepted),
        "ended": iso(batch.ended),
        "rate_per_s": batch.rate_per_s,
        "seconds_left": batch.seconds_left,
        "request_id": batch.request_id,
    }
    return fields if batch.callback is None else fields | {"callback": callback_json(batch.callback)}
