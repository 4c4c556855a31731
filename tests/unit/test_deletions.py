"""Deletion of a collection or of selected images: it includes all earlier adds, and no later one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

import pytest
from redis import Redis

from api.use_cases.delete_selected import DeleteSelected
from common.collection_names import DEFAULT_COLLECTION
from common.errors import QueueError, QueueUnavailable, StoreUnavailable
from common.queue.batches import Batches, BatchState, OpenBatch
from common.queue.deferred_tasks import DeferredTasks
from common.queue.deleted_collections import DeletedCollections
from common.queue.deleted_images import DeletedImages
from common.queue.host_limits import Fault
from common.queue.items import AddItem, EnqueueResult
from common.queue.jobs import NO_REQUEST, SINGLE_QUEUE, ImageSelection, RequestContext
from common.queue.keys import HOST, SLOTS
from common.queue.ledger import Ledger
from common.queue.publisher import Publisher
from common.queue.tasks import Action, RetryRejected, State, Task
from common.store.base import Selection
from common.uploads import Uploads
from support.clocks import Clock
from support.images import gradient
from support.pipelines import open_pipeline
from support.records import deletion as deletion_of
from support.records import patch, record
from support.tasks import accept, begin, enqueue, fail, succeed, task_of
from workers import deletion as deletions
from workers.deletion import Deletion, Unfinished
from workers.pipeline import Pipeline

SHOP = "shop"


class Outbox:
    """A publisher that sends nothing: the tests run the tasks."""

    def send(self, tasks: Sequence[Task], *, queue: str) -> None:
        assert (len(tasks), queue) == (1, SINGLE_QUEUE)


@pytest.fixture
def deletion(fake_redis: Redis, memory_store: Any, clock: Clock) -> Deletion:
    return Deletion(
        DeletedCollections(fake_redis),
        DeletedImages(fake_redis),
        DeferredTasks(fake_redis),
        Batches(fake_redis),
        memory_store,
        clock=lambda: clock.now,
    )


@pytest.fixture
def pipeline(
    fake_redis: Redis, ledger: Ledger, uploads: Uploads, memory_store: Any, deletion: Deletion
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
    monkeypatch.setattr(deletions, "STEP", 2)
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
    monkeypatch.setattr(deletions, "STEP", 2)
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

    ledger.cancel_many([task.id])
    pipeline.run(task.id)
    pipeline.run(added.id)

    assert stored(memory_store) == ["stored", "added"]


def test_deletions_are_forgotten_with_the_tasks_before_them(fake_redis: Redis) -> None:
    deleted = DeletedCollections(fake_redis)
    for name, seq in (("old", 1), ("new", 5), ("new", 3)):
        deleted.mark(name, seq=seq)

    deleted.remove_before(5)

    assert fake_redis.zrange("match:deleted-collections", 0, -1, withscores=True) == [(b"new", 5.0)]


# Selected images


def delete_images(ledger: Ledger, *, prefix: str = "", **where: str) -> Task:
    selection = ImageSelection(filepath_prefix=prefix, where=where)
    [result] = ledger.enqueue(
        [AddItem(selection=selection)], queue=SINGLE_QUEUE, collection=SHOP, action=Action.DELETE_IMAGES
    )
    assert isinstance(result, EnqueueResult)
    return result.task


@pytest.fixture
def add_with(ledger: Ledger, uploads: Uploads) -> Callable[..., Task]:
    def add_with(filepath: str, **metadata: Any) -> Task:
        item = AddItem(filepath=filepath, upload_id=uploads.put(gradient()), metadata=metadata)
        [task] = enqueue(ledger, [item], collection=SHOP)
        return task

    return add_with


def test_only_selected_images_are_deleted(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "STEP", 2)
    memory_store.create_collection(SHOP)
    memory_store.put([record(f"a%/{n}", n, metadata={"n": n % 2}, collection=SHOP) for n in range(1, 6)])
    memory_store.put([record("a%", 6, collection=SHOP), record("ab/1", 7, collection=SHOP), record("a%/1", 8)])

    pipeline.run(delete_images(ledger, prefix="a%/", n="1").id)
    first = stored(memory_store)
    pipeline.run(delete_images(ledger, prefix="a%/").id)

    assert first == ["a%/2", "a%/4", "a%", "ab/1"]
    assert stored(memory_store) == ["a%", "ab/1"]
    assert stored(memory_store, DEFAULT_COLLECTION) == ["a%/1"]
    assert memory_store.collection(SHOP) is not None


@pytest.mark.parametrize("selected", [{"prefix": "cats/"}, {"album": "pets"}, {"prefix": "cats/", "album": "pets"}])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3), (3, 2, 1, 0), (2, 1, 3, 0)])
def test_earlier_adds_are_deleted_and_later_ones_stay(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, add_with: Any, selected: Any, order: Sequence[int]
) -> None:
    before, other = add_with("cats/1", album="pets"), add_with("dogs/1", album="dogs")
    deletion_task = delete_images(ledger, **selected)
    after = add_with("cats/2", album="pets")
    tasks = [before, deletion_task, after, other]

    for number in order:
        pipeline.run(tasks[number].id)

    assert sorted(stored(memory_store)) == ["cats/2", "dogs/1"]
    assert task_of(ledger, before.id).state in {State.SUPERSEDED, State.SUCCEEDED}


def test_add_of_the_filepath_after_the_deletion_stays(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, add: Any
) -> None:
    before, task, after = add("cats/1"), delete_images(ledger, prefix="cats/"), add("cats/1")

    for one in (after, task, before):
        pipeline.run(one.id)

    assert memory_store.records(["cats/1"], collection=SHOP)["cats/1"].seq == after.seq


def test_deletion_of_images_waits_for_earlier_adds_that_run(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, add: Any
) -> None:
    running, other = add("cats/1"), add("dogs/1")
    begin(ledger, running.id)
    begin(ledger, other.id)
    task = delete_images(ledger, prefix="cats/")
    pipeline.deletion.begin_shutdown()

    with pytest.raises(Unfinished):
        pipeline.run(task.id)
    memory_store.put([record("cats/1", running.seq, collection=SHOP)])
    succeed(ledger, running.id)
    pipeline.run(task.id)

    assert task_of(ledger, task.id).state is State.SUCCEEDED
    assert stored(memory_store) == []


def test_retry_stores_no_add_from_before_a_deletion(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, add: Any
) -> None:
    failed = add("cats/1")
    begin(ledger, failed.id)
    fail(ledger, failed.id)
    pipeline.run(delete_images(ledger, prefix="cats/").id)

    ledger.retry([failed.id])
    pipeline.run(failed.id)

    assert task_of(ledger, failed.id).state is State.SUPERSEDED
    assert stored(memory_store) == []


def test_patch_restores_no_deleted_image(pipeline: Pipeline, ledger: Ledger, memory_store: Any, add: Any) -> None:
    memory_store.put([record("cats/1", 1, collection=SHOP)])
    before, task = add("cats/2"), delete_images(ledger, prefix="cats/")
    pipeline.run(task.id)

    memory_store.put([patch(f"cats/{n}", task.seq + 1, {"a": 1}, collection=SHOP) for n in (1, 2)])
    pipeline.run(before.id)

    assert stored(memory_store) == []


def test_batch_counts_the_deleted_images(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, fake_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "STEP", 2)
    batches, client = (
        Batches(fake_redis),
        DeleteSelected(memory_store, ledger, Batches(fake_redis), cast("Publisher", Outbox())),
    )
    memory_store.put([record(f"{n}", n, collection=SHOP) for n in range(1, 6)])
    task = client.delete(
        Selection(collection=SHOP, filepath_prefix=""), RequestContext(request_id="r"), owner="k", expected=5
    )
    memory_store.put([deletion_of("1", 6, collection=SHOP)])
    waiting = batches.get(task.batch or "")
    pipeline.deletion.begin_shutdown()

    with pytest.raises(Unfinished):
        pipeline.run(task.id)
    running = batches.get(task.batch or "")
    for _ in range(2):
        with suppress(Unfinished):
            pipeline.run(task.id)
    ended = batches.get(task.batch or "")

    assert waiting is not None
    assert running is not None
    assert ended is not None
    assert (waiting.state, waiting.total, waiting.pending, waiting.owner) == (BatchState.RUNNING, 5, 5, "k")
    assert (running.state, running.succeeded, running.pending) == (BatchState.RUNNING, 2, 3)
    assert (ended.state, ended.total, ended.succeeded) == (BatchState.ENDED, 4, 4)


def test_deletion_of_more_images_than_estimated_counts_all(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, fake_redis: Redis
) -> None:
    client = DeleteSelected(memory_store, ledger, Batches(fake_redis), cast("Publisher", Outbox()))
    task = client.delete(Selection(collection=SHOP, filepath_prefix=""), NO_REQUEST, owner="", expected=None)
    memory_store.put([record(f"{n}", n, collection=SHOP) for n in range(1, 4)])

    pipeline.run(task.id)

    batch = Batches(fake_redis).get(task.batch or "")
    assert batch is not None
    assert (batch.state, batch.total, batch.succeeded, batch.pending) == (BatchState.ENDED, 3, 3, 0)


class BatchesBeforeAnOutage(Batches):
    """Batches of a Redis that fails after the tasks are accepted."""

    def count(self, batch_id: str, **_changes: Any) -> bool:
        raise QueueUnavailable(batch_id)


class LedgerBeforeAnOutage(Ledger):
    """The ledger of a Redis that fails after the tasks are accepted."""

    def leave_batch(self, batch: OpenBatch) -> int:
        raise QueueUnavailable(batch.id)


def test_accepted_deletion_of_images_is_answered(pipeline: Pipeline, memory_store: Any, fake_redis: Redis) -> None:
    memory_store.put([record("a", 1, collection=SHOP)])
    ledger = LedgerBeforeAnOutage(fake_redis, max_open=10, finished_keep_s=60, failed_keep_s=600)
    client = DeleteSelected(memory_store, ledger, BatchesBeforeAnOutage(fake_redis), cast("Publisher", Outbox()))

    task = client.delete(Selection(collection=SHOP, filepath_prefix=""), NO_REQUEST, owner="", expected=1)
    pipeline.run(task.id)

    batch = Batches(fake_redis).get(task.batch or "")
    assert batch is not None
    assert (batch.total, batch.succeeded, batch.pending) == (1, 1, 0)


@pytest.mark.parametrize("is_pending", [True, False])
def test_cancelled_deletion_of_images_stops_no_add(
    pipeline: Pipeline, ledger: Ledger, memory_store: Any, fake_redis: Redis, add: Any, *, is_pending: bool
) -> None:
    memory_store.put([record("cats/1", 1, collection=SHOP)])
    running, waiting = add("cats/2"), add("cats/3")
    begin(ledger, running.id)
    client = DeleteSelected(memory_store, ledger, Batches(fake_redis), cast("Publisher", Outbox()))
    task = client.delete(Selection(collection=SHOP, filepath_prefix="cats/"), NO_REQUEST, owner="", expected=None)
    pipeline.deletion.begin_shutdown()
    with pytest.raises(Unfinished):
        pipeline.run(task.id)

    Batches(fake_redis).cancel(task.batch or "")
    if is_pending:
        ledger.cancel_many([task.id])
    pipeline.run(task.id)
    pipeline.run(waiting.id)

    assert task_of(ledger, task.id).state is State.CANCELLED
    assert stored(memory_store) == ["cats/1", "cats/3"]


def test_deleted_add_reports_no_success_of_its_host(fake_redis: Redis, pipeline: Pipeline, ledger: Ledger) -> None:
    limits = {b"rate": b"10", b"slots": b"5", b"streak": b"2"}
    fake_redis.hset(HOST + "example.org", mapping=cast("Any", limits))
    [task_id] = accept(ledger, "cats/1", collection=SHOP)
    DeletedImages(fake_redis).mark(SHOP, ImageSelection(), seq=task_of(ledger, task_id).seq + 1)

    pipeline.run(task_id)

    assert task_of(ledger, task_id).state is State.SUPERSEDED
    assert limits.items() <= fake_redis.hgetall(HOST + "example.org").items()
    assert fake_redis.zcard(SLOTS + "example.org") == 0


def test_deletions_of_images_are_forgotten_after_their_time(fake_redis: Redis) -> None:
    deleted = DeletedImages(fake_redis)
    for name, seq in ((SHOP, 1), (SHOP, 5), ("old", 2)):
        deleted.mark(name, ImageSelection(filepath_prefix="a"), seq=seq)

    deleted.remove_before(5)

    assert fake_redis.zrange("match:deleted-images", 0, -1, withscores=True) == [(SHOP.encode(), 5.0)]
    assert [seq for _, seq in fake_redis.zrange("match:deleted-images:of:shop", 0, -1, withscores=True)] == [5.0]
    assert fake_redis.exists("match:deleted-images:of:old") == 0


def test_deletions_in_other_collections_concern_no_add(fake_redis: Redis, ledger: Ledger) -> None:
    deleted, [task_id] = DeletedImages(fake_redis), accept(ledger, "cats/1", collection=SHOP)
    seq = task_of(ledger, task_id).seq
    for name, prefix in ((SHOP, "cats/"), (f"{SHOP}-2", "dogs/"), (DEFAULT_COLLECTION, "birds/")):
        deleted.mark(name, ImageSelection(filepath_prefix=prefix), seq=seq + 1)

    claim = begin(ledger, task_id)

    assert [selection.filepath_prefix for selection in claim.deletions] == ["cats/"]
    assert fake_redis.zcard(f"match:deleted-images:of:{SHOP}") == 1


def test_deferred_tasks_end_with_their_collection(
    fake_redis: Redis, pipeline: Pipeline, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.queue.deferred_tasks.PAGE", 2)
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


def test_a_deletion_ends_no_wait_of_a_later_add(fake_redis: Redis, pipeline: Pipeline, ledger: Ledger) -> None:
    deletion_task = delete(ledger)
    [later] = accept(ledger, "later", collection=SHOP)
    begin(ledger, later)
    ledger.defer(later, Fault(code="connect_failed", error="cannot be connected to", retry_after_s=600))

    pipeline.run(deletion_task.id)

    assert DeferredTasks(fake_redis).take_due().tasks == []
    assert task_of(ledger, later).next_try is not None
