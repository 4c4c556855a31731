"""The ledger: accepted tasks are never forgotten while they are open."""

from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from common.errors import InputError, QueueUnavailable
from common.queue.items import AddItem, EnqueueResult, EnqueueStatus, NotEnqueued
from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE, RequestContext
from common.queue.keys import ENDED, ENDED_TASKS, FAILED, SEQ, TASK
from common.queue.leases import Leases
from common.queue.ledger import Ledger
from common.queue.sequence import SequenceNumbers
from common.queue.stale_tasks import StaleTasks
from common.queue.stats import read_stats
from common.queue.task_pages import TaskFilter, TaskPages
from common.queue.tasks import FORMER_CODES, QueuedTask, RetryRejected, State, TaskResult
from common.redis.client import connect
from common.redis.clock import now_ms
from support.tasks import accept, begin, enqueue, fail, succeed, task_of

JOB = AddItem(filepath="dir/ä cat.jpg", url="http://example.org/cat.jpg", metadata={"kind": ["cat", 1]})


@pytest.fixture
def sequence(fake_redis: Redis) -> SequenceNumbers:
    return SequenceNumbers(fake_redis)


@pytest.fixture
def stale_tasks(fake_redis: Redis) -> StaleTasks:
    return StaleTasks(fake_redis)


@pytest.fixture
def leases(fake_redis: Redis) -> Leases:
    return Leases(fake_redis)


def test_a_claim_contains_the_accepted_item(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)

    claim = begin(ledger, task_id)

    assert (claim.filepath, claim.url, claim.upload_id, claim.metadata) == (JOB.filepath, JOB.url, None, JOB.metadata)


def test_a_task_keeps_its_request_and_trace(ledger: Ledger) -> None:
    context = RequestContext(request_id="r-1", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    [accepted] = enqueue(ledger, [JOB], context=context)

    claim = begin(ledger, accepted.id)

    assert claim.context == context
    succeed(ledger, accepted.id)
    task = task_of(ledger, accepted.id)
    assert accepted.request_id == task.request_id == "r-1"


def test_ended_tasks_are_counted_by_state_and_code(fake_redis: Redis, ledger: Ledger) -> None:
    good, better, bad, unwanted = accept(ledger, *[JOB] * 4)
    ends = [
        TaskResult(task_id=good, state=State.SUCCEEDED),
        TaskResult(task_id=better, state=State.SUCCEEDED),
        TaskResult(task_id=bad, state=State.FAILED, code="http_status", error="a.org answered with status 404"),
    ]

    ledger.finish(ends)
    ledger.finish(ends)
    ledger.cancel_many([unwanted])
    ledger.cancel_many([unwanted])

    assert fake_redis.hgetall(ENDED) == {b"succeeded:": b"2", b"failed:http_status": b"1", b"cancelled:": b"1"}


def test_sequence_numbers_rise_from_request_to_request(ledger: Ledger, sequence: SequenceNumbers) -> None:
    accepted = enqueue(ledger, [JOB, JOB, JOB])

    seqs = [task.seq for task in accepted] + [sequence.next(), sequence.next()]

    assert seqs == sorted(set(seqs))


def test_sequence_numbers_rise_after_a_loss_of_data(fake_redis: Redis, sequence: SequenceNumbers) -> None:
    before = sequence.next()
    fake_redis.flushall()

    after = sequence.next()

    assert after > before


def test_sequence_numbers_rise_after_the_clock_was_set_back(fake_redis: Redis, sequence: SequenceNumbers) -> None:
    in_an_hour = sequence.next() + 3_600_000_000
    fake_redis.set(SEQ, in_an_hour)

    after = sequence.next()

    assert after == in_an_hour + 1


def test_a_warning_is_kept_and_counted(ledger: Ledger, fake_redis: Redis) -> None:
    plain, photo = accept(ledger, JOB, JOB)

    ledger.finish([TaskResult(task_id=plain, state=State.SUCCEEDED, warning="featureless")])
    succeed(ledger, photo)

    assert [task_of(ledger, task_id).warning for task_id in (plain, photo)] == ["featureless", None]
    assert task_of(ledger, plain).code is None
    assert read_stats(fake_redis).ended == {("succeeded", "featureless"): 1, ("succeeded", ""): 1}


def test_begun_tasks_are_running_and_count_attempts(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)

    ledger.begin(task_id)
    ledger.begin(task_id)

    task = task_of(ledger, task_id)
    assert (task.state, task.attempts) == (State.RUNNING, 2)
    assert task.started is not None
    assert task.finished is None


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.SUPERSEDED, State.FAILED, State.CANCELLED])
def test_closed_tasks_are_never_begun_again(ledger: Ledger, state: State) -> None:
    [task_id] = accept(ledger, JOB)
    ledger.finish([TaskResult(task_id=task_id, state=state, code="gone", error="it is gone")])

    assert ledger.begin(task_id) is None


def test_the_first_result_of_a_task_is_kept(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)
    ledger.finish([TaskResult(task_id=task_id, state=State.CANCELLED)])

    succeed(ledger, task_id)

    task = task_of(ledger, task_id)
    assert task.state is State.CANCELLED


def test_success_of_another_delivery_replaces_a_failure(fake_redis: Redis, ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)
    fail(ledger, task_id, code="http_status", error="404")

    succeed(ledger, task_id)

    task = task_of(ledger, task_id)
    assert (task.state, task.code, task.error) == (State.SUCCEEDED, None, None)
    assert fake_redis.zcard(FAILED) == 0


def test_a_failure_keeps_its_reason(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)

    fail(ledger, task_id, code="not_an_image", error="a page of text")

    task = task_of(ledger, task_id)
    assert (task.state, task.code, task.error) == (State.FAILED, "not_an_image", "a page of text")


def test_open_tasks_never_expire_and_closed_ones_do(fake_redis: Redis, ledger: Ledger) -> None:
    open_id, done_id, failed_id = accept(ledger, JOB, JOB, JOB)

    ledger.finish(
        [TaskResult(task_id=done_id, state=State.SUCCEEDED), TaskResult(task_id=failed_id, state=State.FAILED)]
    )

    assert fake_redis.ttl(TASK + open_id) == -1
    assert 0 < int(fake_redis.ttl(TASK + done_id)) <= 60
    assert 60 < int(fake_redis.ttl(TASK + failed_id)) <= 600


def test_items_over_the_limit_get_no_task(ledger: Ledger, fake_redis: Redis) -> None:
    accept(ledger, *[JOB] * 8)

    results = ledger.enqueue([JOB] * 3, queue=SINGLE_QUEUE)

    assert [isinstance(result, EnqueueResult) for result in results] == [True, True, False]
    assert results[-1] is NotEnqueued.FULL
    assert read_stats(fake_redis).open == 10


def test_an_existing_task_passes_a_full_ledger(ledger: Ledger) -> None:
    keyed = AddItem(filepath="a", url="http://example.org/a", task_id="0" * 32, fingerprint="f" * 64)
    accept(ledger, keyed, *[JOB] * 9)

    results = ledger.enqueue([JOB, keyed], queue=SINGLE_QUEUE)

    assert [getattr(result, "status", result) for result in results] == [NotEnqueued.FULL, EnqueueStatus.EXISTING]


def test_an_id_with_another_fingerprint_is_a_conflict(ledger: Ledger) -> None:
    keyed = AddItem(filepath="a", url="http://example.org/a", task_id="0" * 32, fingerprint="f" * 64)
    accept(ledger, keyed)

    [result] = ledger.enqueue([replace(keyed, fingerprint="e" * 64)], queue=SINGLE_QUEUE)

    assert isinstance(result, EnqueueResult)
    assert result.status is EnqueueStatus.CONFLICT


def test_closed_tasks_do_not_count_as_open(ledger: Ledger, fake_redis: Redis) -> None:
    ids = accept(ledger, *[JOB] * 10)
    succeed(ledger, *ids)

    accept(ledger, *[JOB] * 10)

    assert read_stats(fake_redis).open == 10


def begins(ledger: Ledger, task_id: str) -> int:
    claim = ledger.begin(task_id)
    assert claim is not None
    return claim.unfinished


def test_begins_without_an_end_are_counted(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)

    assert [begins(ledger, task_id) for _ in range(3)] == [1, 2, 3]


def test_a_returned_task_counts_as_not_begun(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)
    begins(ledger, task_id)
    begins(ledger, task_id)

    ledger.make_pending(task_id)

    assert begins(ledger, task_id) == 2
    assert task_of(ledger, task_id).attempts == 3


def test_a_released_task_is_pending_again(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)
    ledger.begin(task_id)

    ledger.make_pending(task_id)

    task = task_of(ledger, task_id)
    assert (task.state, task.started, task.attempts) == (State.PENDING, None, 1)


def test_an_unknown_task_is_none(ledger: Ledger) -> None:
    assert ledger.task("nobody") is None
    assert ledger.begin("nobody") is None


def test_touching_a_closed_task_does_not_open_it(ledger: Ledger, stale_tasks: StaleTasks, fake_redis: Redis) -> None:
    [task] = enqueue(ledger, [JOB])
    succeed(ledger, task.id)

    touched = stale_tasks.touch(
        [QueuedTask(task_id=task.id, queue=SINGLE_QUEUE, enqueued_at=task.accepted)], at=now_ms(fake_redis)
    )

    assert touched == []
    assert read_stats(fake_redis).open == 0


def test_only_the_first_to_touch_a_task_enqueues_it(ledger: Ledger, stale_tasks: StaleTasks, fake_redis: Redis) -> None:
    [task] = enqueue(ledger, [JOB])
    tasks = [QueuedTask(task_id=task.id, queue=SINGLE_QUEUE, enqueued_at=task.accepted)]
    now = now_ms(fake_redis) + 1

    first, second = stale_tasks.touch(tasks, at=now), stale_tasks.touch(tasks, at=now)

    assert first == [QueuedTask(task_id=task.id, queue=SINGLE_QUEUE, enqueued_at=now)]
    assert second == []


def test_a_retried_task_keeps_its_sequence_number(fake_redis: Redis, ledger: Ledger) -> None:
    [task] = enqueue(ledger, [JOB], queue=BATCH_QUEUE)
    fail(ledger, task.id)

    [outcome] = ledger.retry([task.id])

    again = task_of(ledger, task.id)
    assert isinstance(outcome, QueuedTask)
    assert (outcome.task_id, outcome.queue) == (task.id, BATCH_QUEUE)
    assert (again.state, again.seq, again.code, again.finished) == (State.PENDING, task.seq, None, None)
    assert fake_redis.ttl(TASK + task.id) == -1
    assert (read_stats(fake_redis).open, fake_redis.zcard(FAILED)) == (1, 0)


def test_a_retry_forgets_begins_without_an_end(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)
    begins(ledger, task_id)
    begins(ledger, task_id)
    fail(ledger, task_id)

    ledger.retry([task_id])

    assert begins(ledger, task_id) == 1


def test_only_failed_tasks_are_retried(ledger: Ledger) -> None:
    pending, running, done, twice = accept(ledger, *[JOB] * 4)
    ledger.begin(running)
    succeed(ledger, done)
    fail(ledger, twice)

    outcomes = ledger.retry([pending, running, done, "nobody", twice, twice])

    assert outcomes[:4] == [RetryRejected.NOT_FAILED] * 3 + [RetryRejected.UNKNOWN]
    assert isinstance(outcomes[4], QueuedTask)
    assert outcomes[5] is RetryRejected.NOT_FAILED


def test_tasks_older_than_tombstones_are_not_retried(fake_redis: Redis, ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)
    fail(ledger, task_id)
    fake_redis.hset(TASK + task_id, "accepted", now_ms(fake_redis) - 601_000)

    assert ledger.retry([task_id]) == [RetryRejected.TOO_LATE]


def test_cancelled_tasks_are_never_begun(ledger: Ledger, fake_redis: Redis) -> None:
    [task_id] = accept(ledger, JOB)

    was = [*ledger.cancel_many([task_id]), *ledger.cancel_many([task_id])]

    assert was == [State.PENDING, State.CANCELLED]
    assert ledger.begin(task_id) is None
    assert read_stats(fake_redis).open == 0


def test_running_and_ended_tasks_are_not_cancelled(ledger: Ledger, fake_redis: Redis) -> None:
    running, failed = accept(ledger, JOB, JOB)
    ledger.begin(running)
    fail(ledger, failed)

    was = ledger.cancel_many([running, failed, "nobody"])

    assert was == [State.RUNNING, State.FAILED, None]
    assert read_stats(fake_redis).open == 1


def test_cursors_walk_all_failures(ledger: Ledger, fake_redis: Redis) -> None:
    ids = accept(ledger, *[JOB] * 5)
    for task_id in ids:
        fail(ledger, task_id)

    walked = walk(fake_redis, State.FAILED, limit=2)

    assert sorted(walked) == sorted(ids)
    assert [len(page) for page in pages(fake_redis, State.FAILED, limit=2)] == [2, 2, 1]


def test_the_newest_failure_is_first(fake_redis: Redis, ledger: Ledger) -> None:
    first, second, third = accept(ledger, *[JOB] * 3)
    for task_id, at in ((second, 30), (third, 20), (first, 10)):
        fail(ledger, task_id)
        fake_redis.zadd(FAILED, {task_id: at})

    assert walk(fake_redis, State.FAILED, limit=1) == [second, third, first]


def test_a_walk_continues_after_its_last_task_left(ledger: Ledger, fake_redis: Redis) -> None:
    ids = accept(ledger, *[JOB] * 4)
    for at, task_id in enumerate(ids):
        fail(ledger, task_id)
        fake_redis.zadd(FAILED, {task_id: at})
    first = TaskPages(fake_redis).page(State.FAILED, limit=2)
    ledger.retry([task.id for task in first.tasks])

    second = TaskPages(fake_redis).page(State.FAILED, limit=2, cursor=first.cursor)

    assert [task.id for task in second.tasks] == [ids[1], ids[0]]


@pytest.mark.parametrize(("code", "former"), FORMER_CODES.items())
def test_former_error_codes_are_read_as_new_ones(ledger: Ledger, code: str, former: str) -> None:
    [task_id] = accept(ledger, JOB)

    fail(ledger, task_id, code=former)

    assert task_of(ledger, task_id).code == code


def test_a_filter_matches_former_error_codes(fake_redis: Redis, ledger: Ledger) -> None:
    old, new, other = accept(ledger, *[JOB] * 3)
    fail(ledger, old, code="image_ends_worker")
    fail(ledger, new, code="decoder_crashed")
    fail(ledger, other)

    listed = walk(fake_redis, State.FAILED, code="decoder_crashed")

    assert set(listed) == {old, new}


def test_failures_are_filtered_by_code_and_prefix(ledger: Ledger, fake_redis: Redis) -> None:
    paths = ["cats/1", "cats/2", "dogs/1"]
    ids = accept(ledger, *[AddItem(filepath=path, url="http://example.org/a") for path in paths])
    for task_id, code in zip(ids, ["timeout", "not_an_image", "timeout"], strict=True):
        fail(ledger, task_id, code=code)

    assert set(walk(fake_redis, State.FAILED, code="timeout")) == {ids[0], ids[2]}
    assert set(walk(fake_redis, State.FAILED, prefix="cats/")) == {ids[0], ids[1]}
    assert walk(fake_redis, State.FAILED, code="timeout", prefix="cats/") == [ids[0]]


def test_a_page_scans_a_bounded_number_of_tasks(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, fake_redis: Redis
) -> None:
    monkeypatch.setattr("common.queue.task_pages.MAX_SCANNED", 2)
    for task_id in accept(ledger, *[JOB] * 5):
        fail(ledger, task_id)

    listed = pages(fake_redis, State.FAILED, limit=10, code="other")

    assert listed == [[], [], []]


def test_waiting_and_running_tasks_are_listed_separately(ledger: Ledger, fake_redis: Redis) -> None:
    waiting, running, returned = accept(ledger, *[JOB] * 3)
    ledger.begin(running)
    ledger.begin(returned)
    ledger.make_pending(returned)

    assert set(walk(fake_redis, State.PENDING)) == {waiting, returned}
    assert walk(fake_redis, State.RUNNING) == [running]


@pytest.mark.parametrize("cursor", ["x", "1-2", "elsewhere:1-2"])
def test_an_unknown_cursor_is_an_input_error(fake_redis: Redis, cursor: str) -> None:
    with pytest.raises(InputError):
        TaskPages(fake_redis).page(State.FAILED, limit=1, cursor=cursor)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.SUPERSEDED, State.CANCELLED])
def test_ended_tasks_are_listed_newest_first(ledger: Ledger, fake_redis: Redis, state: State) -> None:
    task_ids = accept(ledger, *[JOB] * 5)
    for task_id in task_ids:
        ledger.finish([TaskResult(task_id=task_id, state=state)])

    listed = pages(fake_redis, state, limit=2)

    assert [task_id for page in listed for task_id in page] == task_ids[::-1]
    assert [len(page) for page in listed] == [2, 2, 1]


def test_lists_of_ended_tasks_expire(ledger: Ledger, fake_redis: Redis) -> None:
    succeed(ledger, *accept(ledger, JOB, JOB))

    times = [fake_redis.ttl(key) for key in fake_redis.scan_iter(f"{ENDED_TASKS}*")]

    assert len(times) == 2
    assert all(60 <= ttl <= 120 for ttl in times)


def test_ended_tasks_of_earlier_minutes_are_listed(ledger: Ledger, fake_redis: Redis) -> None:
    task_ids = accept(ledger, *[JOB] * 3)
    for minute, task_id in enumerate(task_ids, 1):
        succeed(ledger, task_id)
        [key] = fake_redis.keys(f"{ENDED_TASKS}succeeded:2[0-9]*")
        fake_redis.rename(key, f"{ENDED_TASKS}succeeded:{minute}")
        fake_redis.delete(f"{ENDED_TASKS}succeeded")
    fake_redis.zadd(f"{ENDED_TASKS}succeeded", {"1": 1, "2": 2, "3": 3, "0": 0})

    assert walk(fake_redis, State.SUCCEEDED, limit=1) == task_ids[::-1]


def test_a_list_without_a_state_has_all_tasks_once(ledger: Ledger, fake_redis: Redis) -> None:
    running, waiting, failed, stored, late, unwanted = accept(ledger, *[JOB] * 6)
    ledger.begin(running)
    fail(ledger, failed)
    succeed(ledger, stored)
    ledger.finish([TaskResult(task_id=late, state=State.SUPERSEDED)])
    ledger.cancel_many([unwanted])

    walks = [walk(fake_redis, None, limit=limit) for limit in (1, 2, 4, 100)]

    assert walks == [[running, waiting, failed, stored, late, unwanted]] * 4


def test_tasks_are_filtered_by_their_request(ledger: Ledger, fake_redis: Redis) -> None:
    [task] = enqueue(ledger, [JOB], context=RequestContext(request_id="r-1"))
    enqueue(ledger, [JOB], context=RequestContext(request_id="r-2"))

    assert walk(fake_redis, None, request_id="r-1") == [task.id]


def test_only_unfinished_tasks_need_their_uploads(ledger: Ledger) -> None:
    with_upload, done, without = accept(
        ledger, AddItem(filepath="a", upload_id="one"), AddItem(filepath="b", upload_id="two"), JOB
    )
    succeed(ledger, done)

    assert ledger.uploads_of([with_upload, done, without, "nobody"]) == {with_upload: "one"}


def pages(redis: Redis, state: State | None, *, limit: int = 100, **only: Any) -> list[list[str]]:
    listed, cursor = [], ""
    while cursor is not None:
        page = TaskPages(redis).page(state, limit=limit, cursor=cursor or None, only=TaskFilter(**only))
        listed.append([task.id for task in page.tasks])
        cursor = page.cursor
    return listed


def walk(redis: Redis, state: State | None, **options: Any) -> list[str]:
    return [task_id for page in pages(redis, state, **options) for task_id in page]


def test_an_unreachable_redis_is_unavailable() -> None:
    ledger = Ledger(connect("redis://127.0.0.1:1/0"), max_open=1, finished_keep_s=60, failed_keep_s=60)

    with pytest.raises(QueueUnavailable):
        ledger.check()


def test_leases_from_before_a_clock_change_are_ignored(leases: Leases) -> None:
    leases.acquire("sweep", for_s=3600)

    assert leases.acquire("sweep", for_s=60)


def test_a_lease_has_one_holder(leases: Leases) -> None:
    assert [leases.acquire("sweep", for_s=60), leases.acquire("sweep", for_s=60)] == [True, False]
