"""Names in Redis: this version reads the data of earlier versions."""

from redis import Redis

from common.queue import keys
from common.queue.items import AddItem
from common.queue.ledger import Ledger
from common.queue.tasks import State
from support.tasks import begin, enqueue

PERSISTED = {
    "match:task:",
    "match:open",
    "match:open-by-collection",
    "match:batch-queue-of",
    "match:deleted-collections",
    "match:deleted-images",
    "match:deleted-images:of:",
    "match:batch:",
    "match:batches:of:",
    "match:batches:ends",
    "match:batches:requests",
    "match:running",
    "match:failed",
    "match:seq",
    "match:ended",
    "match:ended-tasks:",
    "match:closed",
    "match:fetching:",
    "match:parked:",
    "match:crowded",
    "match:deferred",
    "match:deferred-by-host",
    "match:host:",
    "match:hosts-due",
    "match:lease:",
    "match:workers",
    "match:usage:",
    "match:usage-writer:",
    "match:watched-workers",
    "match:paused",
    "match:rates",
    "match:upload:",
    "match:upload-bytes",
    "match:upload-ends",
    "match:callbacks:due",
    "match:callbacks:ends:",
    "match:callbacks:delivery:",
    "match:callbacks:bytes",
    "match:callbacks:receiver:",
    "match:callbacks:at:",
    "match:callbacks:parked:",
    "match:callbacks:oldest",
    "match:callbacks:counts",
    "match:nothing",
    "unacked",
    "unacked_index",
}


def test_key_names_are_unchanged() -> None:
    names = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}

    assert names == PERSISTED


def test_task_fields_are_unchanged(fake_redis: Redis, ledger: Ledger) -> None:
    job = AddItem(filepath="cat.jpg", url="http://example.org/cat.jpg", metadata={"kind": "cat"})
    [task] = enqueue(ledger, [job])
    claim = begin(ledger, task.id)

    ledger.finish([claim.result(State.FAILED, code="timeout", error="too slow")])

    stored = {name.decode(): value.decode() for name, value in fake_redis.hgetall(f"match:task:{task.id}").items()}
    assert stored.pop("finished") >= stored.pop("started") >= stored.pop("accepted")
    assert stored == {
        "state": "failed",
        "filepath": "cat.jpg",
        "job": '{"filepath":"cat.jpg","url":"http://example.org/cat.jpg","upload":null,"metadata":{"kind":"cat"}}',
        "queue": "match",
        "host": "example.org",
        "seq": str(task.seq),
        "attempts": "1",
        "unfinished": "1",
        "code": "timeout",
        "error": "too slow",
    }
