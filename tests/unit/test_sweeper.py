"""The sweeper: lost tasks are enqueued again, waiting ones are not."""

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from threading import Semaphore
from typing import Any

import pytest
from redis import Redis

from common.queue.failures import Failures
from common.queue.host_limits import NO_LIMIT, HostSlots
from common.queue.items import AddItem
from common.queue.jobs import BATCH_QUEUE, ENQUEUED_AT_HEADER, SINGLE_QUEUE
from common.queue.keys import OPEN, UNACKED, UNACKED_INDEX
from common.queue.leases import Leases
from common.queue.ledger import Ledger
from common.queue.stale_tasks import StaleTasks
from common.queue.tasks import QueuedTask
from common.redis.clock import now_ms
from common.uploads import Uploads
from support.tasks import enqueue, succeed
from workers.host_limiter import HostLimiter
from workers.retention import Retention
from workers.sweeper import Sweeper, lost

VISIBILITY_TIMEOUT_S = 300
JOB = AddItem(filepath="cat.jpg", url="http://example.org/cat.jpg")


class Queue:
    """Records the sent tasks."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, task_ids: Sequence[str], _queue: str, _at: int) -> None:
        self.sent.extend(task_ids)


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def retention(fake_redis: Redis, ledger: Ledger, memory_store: Any, uploads: Uploads) -> Retention:
    return Retention(fake_redis, ledger, Failures(fake_redis), memory_store, uploads, failed_keep_s=60)


@pytest.fixture
def make_sweeper(fake_redis: Redis, retention: Retention, queue: Queue) -> Callable[..., Sweeper]:
    def make(*, batch: int = 100) -> Sweeper:
        return Sweeper(
            fake_redis,
            StaleTasks(fake_redis),
            Leases(fake_redis),
            queue.send,
            host_limiter=HostLimiter(HostSlots(fake_redis, NO_LIMIT), queue.send),
            retention=retention,
            every_s=VISIBILITY_TIMEOUT_S / 10,
            lost_after_s=2 * VISIBILITY_TIMEOUT_S,
            batch=batch,
        )

    return make


@pytest.fixture
def sweeper(make_sweeper: Callable[..., Sweeper]) -> Sweeper:
    return make_sweeper()


@pytest.fixture
def accept_long_ago(fake_redis: Redis, ledger: Ledger) -> Callable[[], str]:
    def accept() -> str:
        [task] = enqueue(ledger, [JOB])
        fake_redis.zadd(OPEN, {task.id: now_ms(fake_redis) - 2 * VISIBILITY_TIMEOUT_S * 1000 - 1000})
        return task.id

    return accept


def queued(task_id: str, *, at: int, queue: str = SINGLE_QUEUE) -> QueuedTask:
    return QueuedTask(task_id=task_id, queue=queue, enqueued_at=at)


def test_a_task_whose_queue_is_empty_is_lost() -> None:
    task = queued("a", at=5)

    assert lost([task], {SINGLE_QUEUE: None}) == [task]


def test_tasks_enqueued_before_the_oldest_message_are_lost() -> None:
    early, late = queued("a", at=5), queued("b", at=15)

    assert lost([early, late], {SINGLE_QUEUE: 10}) == [early]


def test_each_queue_is_compared_with_its_own_messages() -> None:
    single, batch = queued("a", at=5), queued("b", queue=BATCH_QUEUE, at=5)

    assert lost([single, batch], {SINGLE_QUEUE: None, BATCH_QUEUE: 1}) == [single]


def test_unacknowledged_tasks_are_not_lost() -> None:
    pending, missing = queued("a", at=5), queued("b", at=5)

    assert lost([pending, missing], {SINGLE_QUEUE: None}, {"a"}) == [missing]


def test_unacknowledged_messages_are_not_enqueued_again(
    fake_redis: Redis, sweeper: Sweeper, queue: Queue, accept_long_ago: Callable[[], str]
) -> None:
    pending, missing = accept_long_ago(), accept_long_ago()
    body = b64encode(json.dumps([[pending], {}, {}]).encode()).decode()
    fake_redis.hset(UNACKED, "tag", json.dumps([{"body": body, "headers": {}}, "", SINGLE_QUEUE]))
    fake_redis.hset(UNACKED, "of another program", "[1]")
    fake_redis.zadd(UNACKED_INDEX, {"tag": 1, "of another program": 1})

    sweeper.sweep()

    assert queue.sent == [missing]


def test_one_pass_sends_no_more_than_its_batch(
    make_sweeper: Callable[..., Sweeper], queue: Queue, accept_long_ago: Callable[[], str]
) -> None:
    ids = [accept_long_ago() for _ in range(5)]
    sweeper = make_sweeper(batch=2)

    sweeps = [sweeper.sweep() for _ in range(4)]

    assert sweeps == [2, 2, 1, 0]
    assert sorted(queue.sent) == sorted(ids)


def test_two_sweeps_at_once_send_nothing_twice(
    make_sweeper: Callable[..., Sweeper],
    queue: Queue,
    accept_long_ago: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [accept_long_ago() for _ in range(3)]
    touch = StaleTasks.touch
    other = make_sweeper()

    def both(stale: StaleTasks, tasks: Sequence[QueuedTask], *, at: int) -> list[QueuedTask]:
        # By now the other sweeper has read the same tasks.
        monkeypatch.setattr(StaleTasks, "touch", touch)
        other.sweep()
        return touch(stale, tasks, at=at)

    monkeypatch.setattr(StaleTasks, "touch", both)

    make_sweeper().sweep()

    assert sorted(queue.sent) == sorted(ids)


def test_lost_tasks_are_found_behind_a_long_backlog(
    fake_redis: Redis,
    sweeper: Sweeper,
    ledger: Ledger,
    queue: Queue,
    accept_long_ago: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.sweeper.PAGE", 2)
    monkeypatch.setattr("workers.sweeper.MAX_PAGES", 1)
    for _ in range(5):
        [task] = enqueue(ledger, [JOB], queue=BATCH_QUEUE)
        fake_redis.zadd(OPEN, {task.id: 10})
    fake_redis.lpush(BATCH_QUEUE, json.dumps({"headers": {ENQUEUED_AT_HEADER: 5}}))
    task_id = accept_long_ago()

    for _ in range(4):
        sweeper.sweep()

    assert queue.sent == [task_id]


def test_lost_tasks_are_enqueued_again_once(sweeper: Sweeper, queue: Queue, accept_long_ago: Callable[[], str]) -> None:
    task_id = accept_long_ago()

    sweeps = [sweeper.sweep(), sweeper.sweep()]

    assert sweeps == [1, 0]
    assert queue.sent == [task_id]


def test_recent_tasks_are_lost_after_a_death(
    fake_redis: Redis, sweeper: Sweeper, ledger: Ledger, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues: list[str] = []
    monkeypatch.setattr(sweeper, "_send", lambda ids, name, _at: (queue.sent.extend(ids), queues.append(name)))
    old, new, waiting = (task.id for task in enqueue(ledger, [JOB] * 3))
    now = now_ms(fake_redis)
    fake_redis.zadd(OPEN, {old: now - 6000, new: now - 1000, waiting: now - 500})
    fake_redis.lpush(SINGLE_QUEUE, json.dumps({"headers": {ENQUEUED_AT_HEADER: now - 500}}))

    sent = sweeper.sweep_after_death()

    assert sent == 1
    assert (queue.sent, queues) == ([old], ["match-front"])


def test_recent_tasks_are_not_enqueued_again(sweeper: Sweeper, ledger: Ledger, queue: Queue) -> None:
    enqueue(ledger, [JOB])

    sweeper.sweep()

    assert queue.sent == []


@pytest.mark.parametrize(
    "messages",
    [
        [json.dumps({"headers": {ENQUEUED_AT_HEADER: 1}})],
        [json.dumps({"headers": {ENQUEUED_AT_HEADER: 10**14}})],
        [json.dumps({"headers": {}})],
        ["no json", "[]", '{"headers": null}'],
    ],
    ids=["older", "of a later clock", "without a timestamp", "of another program"],
)
def test_no_task_is_lost_while_its_queue_has_messages(
    fake_redis: Redis, sweeper: Sweeper, queue: Queue, accept_long_ago: Callable[[], str], messages: list[str]
) -> None:
    accept_long_ago()
    fake_redis.lpush(SINGLE_QUEUE, *messages)

    sweeper.sweep()

    assert queue.sent == []


def test_future_timestamps_are_reset_to_now(
    fake_redis: Redis, sweeper: Sweeper, accept_long_ago: Callable[[], str]
) -> None:
    task_id = accept_long_ago()
    fake_redis.zadd(OPEN, {task_id: now_ms(fake_redis) + 3_600_000})

    sweeper.sweep()

    assert fake_redis.zscore(OPEN, task_id) <= now_ms(fake_redis)


def test_sweeps_continue_after_an_error(
    sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passes = Semaphore(0)

    def broken(*_: object, for_s: float) -> bool:
        del for_s
        passes.release()
        raise OSError("the broker went away")

    monkeypatch.setattr(sweeper, "_every_s", 0.01)
    monkeypatch.setattr(Leases, "acquire", broken)

    sweeper.start()
    swept_on = [passes.acquire(timeout=30) for _ in range(3)]
    sweeper.close()

    assert swept_on == [True, True, True]
    assert "unexpected error in a sweep" in caplog.text


def test_closed_tasks_are_not_enqueued_again(
    sweeper: Sweeper, ledger: Ledger, queue: Queue, accept_long_ago: Callable[[], str]
) -> None:
    task_id = accept_long_ago()
    succeed(ledger, task_id)

    sweeper.sweep()

    assert queue.sent == []
