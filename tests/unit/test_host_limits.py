"""Per-host concurrency limit: never more downloads than slots, and each waiting task gets one."""

from collections.abc import Callable

import pytest
from redis import Redis

from common.queue.batches import Batches
from common.queue.deleted_collections import DeletedCollections
from common.queue.host_limits import HostLimit, HostSlots
from common.queue.items import AddItem, EnqueueResult
from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE
from common.queue.keys import SLOTS, WAITING_HOSTS
from common.queue.ledger import Ledger
from common.queue.stale_tasks import StaleTasks
from common.queue.tasks import QueuedTask, State
from common.redis.clock import now_ms
from support.tasks import HOST, accept_urls, begin, enqueue, task_of
from workers.host_limiter import HostLimiter


def limit_of(slots: int) -> HostLimit:
    return HostLimit(slots=slots, lease_s=20)


@pytest.fixture
def slots(fake_redis: Redis) -> HostSlots:
    return HostSlots(fake_redis, limit_of(1))


@pytest.fixture
def make_ledger(fake_redis: Redis) -> Callable[..., Ledger]:
    def make(*, most: int) -> Ledger:
        limit = limit_of(most)
        return Ledger(fake_redis, max_open=100, finished_keep_s=60, failed_keep_s=60, host_limit=limit)

    return make


@pytest.fixture
def ledger(make_ledger: Callable[..., Ledger]) -> Ledger:
    return make_ledger(most=1)


def ids(messages: list[QueuedTask]) -> list[str]:
    return [message.task_id for message in messages]


def test_a_task_without_a_slot_waits(ledger: Ledger) -> None:
    first, second = accept_urls(ledger, 2)

    claims = [ledger.begin(first.id), ledger.begin(second.id)]

    waiting = task_of(ledger, second.id)
    assert [claim is not None for claim in claims] == [True, False]
    assert (waiting.state, waiting.attempts) == (State.PENDING, 0)


def test_other_hosts_have_slots_of_their_own(ledger: Ledger) -> None:
    [busy], [other] = accept_urls(ledger, 1), accept_urls(ledger, 1, host="other.example")
    begin(ledger, busy.id)

    assert begin(ledger, other.id).host == "other.example"


def test_uploads_need_no_slot(ledger: Ledger) -> None:
    uploads = enqueue(ledger, [AddItem(filepath=f"{n}", upload_id="bytes") for n in range(3)])

    assert [begin(ledger, task.id).host for task in uploads] == [None] * 3


def test_a_released_slot_goes_to_the_oldest_request(ledger: Ledger, slots: HostSlots) -> None:
    first, second, third = accept_urls(ledger, 3)
    begin(ledger, first.id)
    ledger.begin(third.id)
    ledger.begin(second.id)

    enqueued = slots.release(HOST, first.id)

    assert ids(enqueued) == [second.id]


def test_single_adds_get_slots_before_older_batch_tasks(ledger: Ledger, slots: HostSlots) -> None:
    [running], [batch], [single] = (
        accept_urls(ledger, 1),
        accept_urls(ledger, 1, queue=BATCH_QUEUE),
        accept_urls(ledger, 1),
    )
    begin(ledger, running.id)
    ledger.begin(batch.id)
    ledger.begin(single.id)

    enqueued = slots.release(HOST, running.id)

    assert [(message.task_id, message.queue) for message in enqueued] == [(single.id, SINGLE_QUEUE)]


def test_collections_take_turns_at_a_host(ledger: Ledger, slots: HostSlots) -> None:
    [running] = accept_urls(ledger, 1)
    begin(ledger, running.id)
    waiting = {
        task.id: name
        for name in ("large", "small")
        for task in accept_urls(ledger, 8, queue=BATCH_QUEUE, collection=name)
    }
    for task_id in waiting:
        ledger.begin(task_id)

    freed, order = running.id, []
    for _ in range(8):
        [freed] = ids(slots.release(HOST, freed))
        order.append(waiting[freed])

    assert set(order) == {"large", "small"}


def test_touch_finds_hosts_that_an_earlier_version_forgot(ledger: Ledger, slots: HostSlots, fake_redis: Redis) -> None:
    running, waiting = accept_urls(ledger, 2)
    begin(ledger, running.id)
    ledger.begin(waiting.id)
    fake_redis.delete(WAITING_HOSTS)
    stale = StaleTasks(fake_redis)

    touched = stale.touch(stale.enqueued_before(now_ms(fake_redis) + 1, offset=0, limit=9), at=now_ms(fake_redis))

    assert waiting.id not in ids(touched)
    assert slots.waiting_hosts(limit=9) == [HOST]


def test_an_enqueued_task_keeps_its_slot(ledger: Ledger, slots: HostSlots) -> None:
    first, second, third = accept_urls(ledger, 3)
    begin(ledger, first.id)
    ledger.begin(second.id)
    slots.release(HOST, first.id)

    assert ledger.begin(third.id) is None
    assert begin(ledger, second.id).task_id == second.id


def test_each_waiting_task_is_enqueued_once(fake_redis: Redis, make_ledger: Callable[..., Ledger]) -> None:
    ledger, slots = make_ledger(most=3), HostSlots(fake_redis, limit_of(3))
    tasks = accept_urls(ledger, 20)
    running = [task.id for task in tasks if ledger.begin(task.id)]
    enqueued: list[str] = []

    while running:
        sent = ids(slots.release(HOST, running.pop()))
        enqueued += sent
        running += [task_id for task_id in sent if ledger.begin(task_id)]

    assert sorted(enqueued) == sorted(task.id for task in tasks[3:])
    assert slots.waiting_hosts(limit=9) == []


def test_a_redelivered_task_keeps_its_slot(ledger: Ledger) -> None:
    [task] = accept_urls(ledger, 1)
    begin(ledger, task.id)

    assert begin(ledger, task.id).host == HOST


def test_cancelled_tasks_get_no_slot(ledger: Ledger, slots: HostSlots) -> None:
    first, second, third = accept_urls(ledger, 3)
    begin(ledger, first.id)
    ledger.begin(second.id)
    ledger.begin(third.id)
    ledger.cancel_many([second.id])

    assert ids(slots.release(HOST, first.id)) == [third.id]


def test_waiting_tasks_of_a_cancelled_batch_need_no_slot(ledger: Ledger, slots: HostSlots, fake_redis: Redis) -> None:
    batches = Batches(fake_redis)
    items = [AddItem(filepath=f"{n}", url=f"http://{HOST}/{n}", host=HOST) for n in range(3)]
    results = ledger.enqueue(items, queue=BATCH_QUEUE, batch=batches.join("b"))
    running, *cancelled = [result.task.id for result in results if isinstance(result, EnqueueResult)]
    [other] = accept_urls(ledger, 1, queue=BATCH_QUEUE)
    for task_id in (running, *cancelled, other.id):
        ledger.begin(task_id)

    batches.cancel("b")
    enqueued = ids(slots.release(HOST, running))

    assert sorted(enqueued) == sorted([*cancelled, other.id])
    assert [begin(ledger, task_id).is_batch_cancelled for task_id in cancelled] == [True, True]
    assert fake_redis.zrange(SLOTS + HOST, 0, -1) == [other.id.encode()]


def test_a_task_cancelled_with_a_slot_releases_it(ledger: Ledger, slots: HostSlots, fake_redis: Redis) -> None:
    batches = Batches(fake_redis)
    [running] = accept_urls(ledger, 1, queue=BATCH_QUEUE)
    item = AddItem(filepath="a", url=f"http://{HOST}/a", host=HOST)
    [result] = ledger.enqueue([item], queue=BATCH_QUEUE, batch=batches.join("b"))
    assert isinstance(result, EnqueueResult)
    begin(ledger, running.id)
    ledger.begin(result.task.id)
    slots.release(HOST, running.id)

    batches.cancel("b")

    assert begin(ledger, result.task.id).is_batch_cancelled
    assert fake_redis.zcard(SLOTS + HOST) == 0


def test_a_task_of_a_deleted_collection_stops_waiting(ledger: Ledger, slots: HostSlots, fake_redis: Redis) -> None:
    running, deleted = (accept_urls(ledger, 1, collection=name)[0] for name in ("kept", "deleted"))
    begin(ledger, running.id)
    ledger.begin(deleted.id)
    DeletedCollections(fake_redis).mark("deleted", seq=deleted.seq + 1)

    claim = begin(ledger, deleted.id)

    assert claim.is_collection_deleted
    assert slots.release(HOST, running.id) == []


def test_slots_of_dead_workers_go_to_waiting_tasks(fake_redis: Redis, ledger: Ledger, slots: HostSlots) -> None:
    first, second = accept_urls(ledger, 2)
    begin(ledger, first.id)
    ledger.begin(second.id)
    sent: list[tuple[list[str], str]] = []
    limiter = HostLimiter(slots, lambda task_ids, queue, _at: sent.append((list(task_ids), queue)))

    limiter.admit_waiting()
    fake_redis.zadd(SLOTS + HOST, {first.id: now_ms(fake_redis) - 1})
    limiter.admit_waiting()

    assert sent == [([second.id], "match-front")]


def test_removing_the_limit_enqueues_all_waiting_tasks(ledger: Ledger, fake_redis: Redis) -> None:
    tasks = accept_urls(ledger, 5)
    for task in tasks:
        ledger.begin(task.id)

    enqueued = HostSlots(fake_redis, limit_of(0)).admit(HOST)

    assert sorted(ids(enqueued)) == sorted(task.id for task in tasks[1:])


def test_tasks_waiting_for_a_slot_are_not_lost(ledger: Ledger, fake_redis: Redis) -> None:
    first, second = accept_urls(ledger, 2)
    begin(ledger, first.id)
    ledger.begin(second.id)
    [old] = [
        message
        for message in StaleTasks(fake_redis).enqueued_before(now_ms(fake_redis) + 1, offset=0, limit=9)
        if message.task_id == second.id
    ]

    assert StaleTasks(fake_redis).touch([old], at=old.enqueued_at + 1) == []


def test_without_a_limit_no_slot_is_taken(make_ledger: Callable[..., Ledger], fake_redis: Redis) -> None:
    ledger = make_ledger(most=0)
    [task] = accept_urls(ledger, 1)

    claim = begin(ledger, task.id)

    assert (claim.host, claim.has_slot) == (HOST, False)
    assert not fake_redis.exists(SLOTS + HOST)


def test_a_failed_download_releases_its_slot(ledger: Ledger, slots: HostSlots) -> None:
    first, second = accept_urls(ledger, 2)
    claim = begin(ledger, first.id)
    ledger.begin(second.id)
    sent: list[str] = []
    limiter = HostLimiter(slots, lambda task_ids, *_: sent.extend(task_ids))

    with pytest.raises(ConnectionError), limiter.slot(claim):
        raise ConnectionError

    assert sent == [second.id]


def test_an_error_on_release_fails_no_download(
    ledger: Ledger, caplog: pytest.LogCaptureFixture, slots: HostSlots
) -> None:
    first, second = accept_urls(ledger, 2)
    claim = begin(ledger, first.id)
    ledger.begin(second.id)

    def broken(*_: object) -> None:
        raise OSError("no broker")

    with HostLimiter(slots, broken).slot(claim):
        pass

    assert "cannot release" in caplog.text
