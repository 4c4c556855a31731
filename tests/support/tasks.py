"""Tasks in the ledger: accept them, finish them, wait for them."""

from collections.abc import Sequence
from typing import Any

from redis import Redis

from common.collection_names import DEFAULT_COLLECTION
from common.errors import FetchError
from common.net.addresses import read_url
from common.queue.items import AddItem, EnqueueResult
from common.queue.jobs import NO_REQUEST, SINGLE_QUEUE, RequestContext
from common.queue.keys import OPEN, TASK
from common.queue.ledger import Ledger
from common.queue.tasks import CLOSED_STATES, Claim, State, Task, TaskResult
from common.wiring import Dependencies
from support.images import noise
from support.waiting import WITHIN_S, wait_until

HOST = "example.org"
URL = f"http://{HOST}/a"


def ledger_in(redis: Redis, *, max_open: int = 1000, keep_s: int = 60, **options: Any) -> Ledger:
    """Return a ledger with this Redis."""
    return Ledger(redis, max_open=max_open, finished_keep_s=keep_s, failed_keep_s=keep_s, **options)


def enqueue(
    ledger: Ledger,
    items: Sequence[AddItem],
    *,
    queue: str = SINGLE_QUEUE,
    context: RequestContext = NO_REQUEST,
    collection: str = DEFAULT_COLLECTION,
) -> list[Task]:
    """Enqueue items, which must fit into the ledger, and return their tasks."""
    for item in items:
        item.host = item.host or _host(item)
    results = ledger.enqueue(items, queue=queue, context=context, collection=collection)
    return [result.task for result in results if isinstance(result, EnqueueResult)]


def _host(item: AddItem) -> str:
    try:
        return "" if item.url is None else read_url(item.url).host
    except FetchError:
        return ""


def accept(
    ledger: Ledger,
    *adds: str | AddItem,
    queue: str = SINGLE_QUEUE,
    collection: str = DEFAULT_COLLECTION,
    **source: Any,
) -> list[str]:
    """Accept adds, each a filepath or an item, and return the ids of their tasks.

    `source` is the `url` or the `upload_id` of the filepaths.
    """
    items = [AddItem(filepath=add, **source or {"url": URL}) if isinstance(add, str) else add for add in adds]
    return [task.id for task in enqueue(ledger, items, queue=queue, collection=collection)]


def accept_urls(ledger: Ledger, count: int, *, host: str = HOST, **options: Any) -> list[Task]:
    """Accept adds of images at one host; `options` are those of `enqueue`."""
    return enqueue(ledger, [AddItem(filepath=f"{n}", url=f"http://{host}/{n}") for n in range(count)], **options)


def accept_upload(parts: Dependencies, filepath: str, data: bytes, **options: Any) -> Task:
    """Accept an add of uploaded bytes, as the API does; `options` are those of `enqueue`."""
    upload = parts.uploads.put(data)
    parts.uploads.keep(upload)
    [task] = enqueue(parts.ledger, [AddItem(filepath=filepath, upload_id=upload)], **options)
    return task


def accept_images(parts: Dependencies, count: int, **options: Any) -> list[Task]:
    """Accept adds of different images; their filepaths are numbers in order, `options` are those of `enqueue`."""
    return [accept_upload(parts, f"{number:03}", noise(number), **options) for number in range(count)]


def begin(ledger: Ledger, task_id: str) -> Claim:
    """Begin a task, which must be free, and return the claim."""
    claim = ledger.begin(task_id)
    assert claim is not None
    return claim


def fail(ledger: Ledger, *task_ids: str, code: str = "timeout", error: str = "why") -> None:
    """End tasks as failed."""
    ledger.finish([TaskResult(task_id=task_id, state=State.FAILED, code=code, error=error) for task_id in task_ids])


def end(redis: Redis, task_id: str, state: State = State.SUCCEEDED, **reason: str) -> None:
    """End a task as another process does."""
    ledger_in(redis).finish([TaskResult(task_id=task_id, state=state, **reason)])


def succeed(ledger: Ledger, *task_ids: str) -> None:
    """End tasks as stored."""
    ledger.finish([TaskResult(task_id=task_id, state=State.SUCCEEDED) for task_id in task_ids])


def task_of(ledger: Ledger, task_id: str) -> Task:
    """Return a task, which must exist."""
    task = ledger.task(task_id)
    assert task is not None
    return task


def wait_for_open(redis: Redis, count: int = 1) -> list[str]:
    """Return the ids of open tasks, in the order of their sequence numbers, when there are so many."""
    wait_until(lambda: redis.zcard(OPEN) >= count, f"{count} tasks are open")
    ids = [str(task_id, "ascii") for task_id in redis.zrange(OPEN, 0, -1) if isinstance(task_id, bytes)]
    return sorted(ids, key=lambda task_id: int(redis.hget(TASK + task_id, "seq") or 0))


def have_ended(ledger: Ledger, tasks: Sequence[Task]) -> bool:
    """Return whether every task exists and is closed."""
    known = [ledger.task(task.id) for task in tasks]
    return all(task is not None and task.state in CLOSED_STATES for task in known)


def wait_for_ends(ledger: Ledger, tasks: Sequence[Task], *, within_s: float = WITHIN_S) -> list[State]:
    """Wait until the tasks are closed, and return their states."""
    wait_until(lambda: have_ended(ledger, tasks), f"{len(tasks)} tasks end", within_s=within_s)
    return [task_of(ledger, task.id).state for task in tasks]
