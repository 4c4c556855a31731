"""Deletion of a collection: it includes all adds that were accepted before, and none after."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from common.collection_names import DEFAULT_COLLECTION
from common.errors import QueueError, StoreUnavailable
from common.queue.deferred_tasks import DeferredTasks
from common.queue.deleted_collections import DeletedCollections
from common.queue.host_limits import Fault
from common.queue.items import AddItem, EnqueueResult
from common.queue.jobs import SINGLE_QUEUE
from common.queue.ledger import Ledger
from common.queue.tasks import Action, RetryRejected, State, Task
from common.store.base import Selection
from common.uploads import Uploads
from support.clocks import Clock
from support.images import gradient
from support.pipelines import open_pipeline
from support.records import record
from support.tasks import accept, begin, enqueue, fail, succeed, task_of
from workers import collection_deletion
from workers.collection_deletion import CollectionDeletion, Unfinished
from workers.pipeline import Pipeline

SHOP = "shop"


@pytest.fixture
def deletion(fake_redis: Redis, memory_store: Any, clock: Clock) -> CollectionDeletion:
    return CollectionDeletion(DeletedCollections(fake_redis), memory_store, clock=lambda: clock.now)


@pytest.fixture
def pipeline(
    fake_redis: Redis, ledger: Ledger, uploads: Uploads, memory_store: Any, deletion: CollectionDeletion
) -> Iterator[Pipeline]:
    with open_pipeline(fake_redis, ledger, uploads, memory_store, deletion=deletion) as pipeline:
        yield pipeline


@pytest.fixture
def add(ledger: Ledger, uploads: Uploads) -> Callable[..., Task]:
    def add(filepath: str, *, collection: str = SHOP) -> Task:
        item = AddItem(filepath=filepath, upload_id=uploads.put(gradient()))
        [task] = enqueue(ledger, [item], collection=collection)
        return task

    return add


def delete(ledger: Ledger, collection: str = SHOP) -> Task:
    [result] = ledger.enqueue([AddItem()], queue=SINGLE_QUEUE, collection=collection, action=Action.DELETE_COLLECTION)
    assert isinstance(result, EnqueueResult)
    return result.task


def stored(memory_store: Any, collection: str = SHOP) -> list[str]:
    filepaths: list[str] = memory_store.filepaths(
        offset=0, limit=99, selection=Selection(collection=collection)
    ).filepaths
    return filepaths


def test_images_of_the_collection_are_deleted(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection_deletion, "STEP", 2)
    memory_store.put_collection(SHOP, max_images=9)
    memory_store.put([record(f"{n}", n, collection=SHOP) for n in range(1, 6)] + [record("kept", 6)])
    task = delete(ledger)

    pipeline.run(task.id)

    assert task_of(ledger, task.id).state is State.SUCCEEDED
    assert memory_store.collection(SHOP) is None
    assert stored(memory_store, DEFAULT_COLLECTION) == ["kept"]


def test_default_collection_becomes_empty_and_exists(pipeline: Pipeline, ledger: Ledger, memory_store: Any) -> None:
    memory_store.put([record("a", 1)])

    pipeline.run(delete(ledger, DEFAULT_COLLECTION).id)

    assert memory_store.collection(DEFAULT_COLLECTION).images == 0


def test_adds_accepted_before_the_deletion_are_included(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, add: Any
) -> None:
    before = add("before")
    deletion_task = delete(ledger)
    after, elsewhere = add("after"), add("elsewhere", collection="other")

    for task in (after, deletion_task, before, elsewhere):
        pipeline.run(task.id)

    states = [task_of(ledger, task.id).state for task in (before, after, elsewhere)]
    assert states == [State.SUPERSEDED, State.SUCCEEDED, State.SUCCEEDED]
    assert stored(memory_store) == ["after"]
    assert stored(memory_store, "other") == ["elsewhere"]


def test_deletion_waits_for_earlier_tasks_that_are_running(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, add: Any
) -> None:
    running = add("running")
    begin(ledger, running.id)
    task = delete(ledger)
    # A process that is shutting down waits for nothing.
    pipeline.deletion.begin_shutdown()

    with pytest.raises(Unfinished):
        pipeline.run(task.id)
    waiting = task_of(ledger, task.id)
    memory_store.put([record("running", running.seq, collection=SHOP)])
    succeed(ledger, running.id)
    pipeline.run(task.id)

    assert waiting.state is State.PENDING
    assert task_of(ledger, task.id).state is State.SUCCEEDED
    assert stored(memory_store) == []


def test_long_deletion_continues_in_another_run(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection_deletion, "STEP", 2)
    memory_store.put([record(f"{n}", n, collection=SHOP) for n in range(1, 6)])
    task = delete(ledger)
    pipeline.deletion.begin_shutdown()

    runs = 0
    while task_of(ledger, task.id).state is not State.SUCCEEDED:
        runs += 1
        try:
            pipeline.run(task.id)
        except QueueError:
            continue

    assert runs == 3
    assert memory_store.collection(SHOP) is None


def test_deletion_waits_for_an_unavailable_store(pipeline: Pipeline, ledger: Ledger, memory_store: Any) -> None:
    task = delete(ledger)
    memory_store.away = True

    with pytest.raises(StoreUnavailable):
        pipeline.run(task.id)

    assert task_of(ledger, task.id).state is State.PENDING


def test_failure_before_a_deletion_is_not_retried(pipeline: Pipeline, ledger: Ledger) -> None:
    failed, elsewhere = accept(ledger, "a", collection=SHOP), accept(ledger, "a")
    fail(ledger, *failed, *elsewhere)

    pipeline.run(delete(ledger).id)

    assert ledger.retry(failed) == [RetryRejected.TOO_LATE]
    assert ledger.retry(elsewhere) != [RetryRejected.TOO_LATE]


def test_cancelled_deletion_deletes_nothing(pipeline: Pipeline, ledger: Ledger, memory_store: Any, add: Any) -> None:
    memory_store.put([record("stored", 1, collection=SHOP)])
    added, task = add("added"), delete(ledger)

    ledger.cancel(task.id)
    pipeline.run(task.id)
    pipeline.run(added.id)

    assert stored(memory_store) == ["stored", "added"]


def test_deletions_are_forgotten_with_the_tasks_before_them(fake_redis: Redis) -> None:
    deleted = DeletedCollections(fake_redis)
    for name, seq in (("old", 1), ("new", 5), ("new", 3)):
        deleted.mark(name, seq=seq)

    deleted.remove_before(5)

    assert fake_redis.zrange("match:deleted-collections", 0, -1, withscores=True) == [(b"new", 5.0)]


def test_deferred_tasks_end_with_their_collection(
    fake_redis: Redis, pipeline: Pipeline, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.queue.deleted_collections.PAGE", 2)
    fault = Fault(code="connect_failed", error="cannot be connected to", retry_after_s=600)
    ids = [accept(ledger, f"{n}", collection=name)[0] for n in range(3) for name in (SHOP, DEFAULT_COLLECTION)]
    for task_id in ids:
        begin(ledger, task_id)
        ledger.defer(task_id, fault)

    pipeline.run(delete(ledger).id)
    due = [task.task_id for task in DeferredTasks(fake_redis).take_due().tasks]
    for task_id in due:
        pipeline.run(task_id)

    assert sorted(due) == sorted(ids[::2])
    assert {task_of(ledger, task_id).state for task_id in due} == {State.SUPERSEDED}
