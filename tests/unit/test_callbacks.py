"""The outbox: each ended task is reported to its URL, and one receiver does not delay another."""

import pytest
from redis import Redis

from common.queue.callbacks import Callback, CallbackState, Delivery, DeliveryResult, Outbox
from common.queue.items import AddItem
from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE, RequestContext
from common.queue.keys import (
    CALLBACK_BYTES,
    CALLBACK_COUNTS,
    CALLBACK_DUE,
    CALLBACK_ENDS,
    CALLBACK_OLDEST,
    CALLBACK_RECEIVER,
    CALLBACK_SLOTS,
    TASK,
)
from common.queue.ledger import Ledger
from common.queue.stats import read_stats
from common.queue.tasks import State, TaskResult
from common.queue.tasks import task_of as task_of_fields
from common.redis.clock import now_ms
from support.tasks import enqueue, task_of

URL = "https://hooks.example.org:443/one"
OTHER = "https://hooks.example.org:443/two"
ELSEWHERE = "https://elsewhere.example.org:443/"


@pytest.fixture
def ledger(fake_redis: Redis) -> Ledger:
    return Ledger(fake_redis, max_open=1000, finished_keep_s=60, failed_keep_s=600, max_callbacks_bytes=4_000_000)


@pytest.fixture
def outbox(fake_redis: Redis) -> Outbox:
    return Outbox(fake_redis, lease_s=30, keep_s=3600)


def enqueue_callbacks(ledger: Ledger, count: int = 1, *, url: str = URL, queue: str = SINGLE_QUEUE) -> list[str]:
    items = [AddItem(filepath=f"dir/ä {number}", url="http://example.org/a") for number in range(count)]
    return [task.id for task in enqueue(ledger, items, queue=queue, context=RequestContext(callback_url=url))]


def end(ledger: Ledger, task_ids: list[str], state: State = State.SUCCEEDED) -> int:
    reason = {"code": "http_status", "error": "404"} if state is State.FAILED else {}
    return ledger.finish([TaskResult(task_id=task_id, state=state, **reason) for task_id in task_ids])


def let_time_pass(redis: Redis) -> None:
    """End all pauses and leases."""
    for url in redis.zrange(CALLBACK_DUE, 0, -1):
        redis.zadd(CALLBACK_DUE, {url: 0})
    for key in redis.scan_iter(f"{CALLBACK_RECEIVER}*"):
        redis.hset(key, "until", 0)
    for key in redis.scan_iter(f"{CALLBACK_SLOTS}*"):
        redis.delete(key)


def claim(redis: Redis, outbox: Outbox) -> Delivery:
    let_time_pass(redis)
    delivery = outbox.claim()
    assert delivery is not None
    return delivery


def callback(ledger: Ledger, task_id: str) -> Callback:
    reported = task_of(ledger, task_id).callback
    assert reported is not None
    return reported


def is_outbox_empty(redis: Redis) -> bool:
    kept = {key for key in redis.scan_iter("match:callbacks:*") if not key.startswith(CALLBACK_RECEIVER.encode())}
    counted = redis.hget(CALLBACK_COUNTS, CallbackState.PENDING) == b"0" and redis.hgetall(CALLBACK_BYTES) == {
        b"": b"0"
    }
    return kept <= {CALLBACK_BYTES.encode(), CALLBACK_COUNTS.encode()} and counted


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.SUPERSEDED, State.FAILED, State.CANCELLED])
def test_callbacks_report_tasks_as_they_ended(ledger: Ledger, outbox: Outbox, fake_redis: Redis, state: State) -> None:
    [task_id] = enqueue_callbacks(ledger)
    end(ledger, [task_id], state)

    [ended] = claim(fake_redis, outbox).tasks

    reported, current = task_of_fields(task_id, ended.fields), task_of(ledger, task_id)
    assert (reported.id, reported.state, reported.filepath, reported.finished) == (
        task_id,
        state,
        "dir/ä 0",
        current.finished,
    )
    assert (reported.code, reported.error) == (("http_status", "404") if state is State.FAILED else (None, None))


def test_a_cancelled_task_has_a_callback(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    [task_id] = enqueue_callbacks(ledger)

    ledger.cancel_many([task_id])

    [ended] = claim(fake_redis, outbox).tasks
    assert (ended.task_id, ended.fields["state"]) == (task_id, "cancelled")


def test_tasks_without_callback_stay_out_of_the_outbox(ledger: Ledger, fake_redis: Redis) -> None:
    [task] = enqueue(ledger, [AddItem(filepath="a", url="http://example.org/a")])

    end(ledger, [task.id])

    assert list(fake_redis.scan_iter("match:callbacks:*")) == []
    assert getattr(ledger.task(task.id), "callback", "unknown") is None


def test_a_repeated_end_has_no_callback(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    ids = enqueue_callbacks(ledger)
    end(ledger, ids)

    end(ledger, ids, State.FAILED)

    assert [ended.fields["state"] for ended in claim(fake_redis, outbox).tasks] == ["succeeded"]


def test_callbacks_to_one_url_are_delivered_together(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    ids = enqueue_callbacks(ledger, 250, queue=BATCH_QUEUE)
    end(ledger, ids)

    deliveries = []
    for _ in range(3):
        deliveries.append(claim(fake_redis, outbox))
        outbox.report(deliveries[-1], DeliveryResult.ACCEPTED)

    assert [len(delivery.tasks) for delivery in deliveries] == [100, 100, 50]
    assert [ended.task_id for delivery in deliveries for ended in delivery.tasks] == ids
    assert len({delivery.id for delivery in deliveries}) == 3
    assert {callback(ledger, task_id).state for task_id in ids} == {CallbackState.DELIVERED}
    assert is_outbox_empty(fake_redis)


def test_a_full_delivery_does_not_linger(ledger: Ledger, outbox: Outbox) -> None:
    ids = enqueue_callbacks(ledger, 100)
    end(ledger, ids[:99])
    early = outbox.claim()

    end(ledger, ids[99:])

    delivery = outbox.claim()
    assert early is None
    assert delivery is not None
    assert len(delivery.tasks) == 100


def test_a_claimed_delivery_has_one_holder(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    end(ledger, enqueue_callbacks(ledger))
    first = claim(fake_redis, outbox)
    meanwhile = outbox.claim()

    second = claim(fake_redis, outbox)

    assert meanwhile is None
    assert (second.id, second.tasks, second.attempt) == (first.id, first.tasks, 2)
    assert outbox.report(first, DeliveryResult.FAILED) is None
    assert outbox.report(second, DeliveryResult.ACCEPTED) is CallbackState.DELIVERED


def test_a_failed_delivery_is_repeated_unchanged(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    [first, second] = enqueue_callbacks(ledger, 2)
    end(ledger, [first])
    delivery = claim(fake_redis, outbox)

    outbox.report(delivery, DeliveryResult.FAILED, problem="hooks.example.org answered with status 500")
    end(ledger, [second])

    reported = callback(ledger, first)
    assert (reported.state, reported.attempts, reported.error) == (
        CallbackState.PENDING,
        1,
        "hooks.example.org answered with status 500",
    )
    assert reported.next is not None
    assert 0 < reported.next - now_ms(fake_redis) <= 5000
    again = claim(fake_redis, outbox)
    assert (again.id, again.tasks) == (delivery.id, delivery.tasks)
    outbox.report(again, DeliveryResult.ACCEPTED)
    assert callback(ledger, first) == Callback(CallbackState.DELIVERED, 2)
    assert [ended.task_id for ended in claim(fake_redis, outbox).tasks] == [second]


def test_pauses_double_up_to_an_hour(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    [task_id] = enqueue_callbacks(ledger)
    end(ledger, [task_id])

    pauses = []
    for _ in range(12):
        outbox.report(claim(fake_redis, outbox), DeliveryResult.FAILED)
        pauses.append(((callback(ledger, task_id).next or 0) - now_ms(fake_redis)) / 1000)

    assert pauses[:4] == pytest.approx([5, 10, 20, 40], abs=1)
    assert pauses[-2:] == pytest.approx([3600, 3600], abs=1)


def test_a_gone_receiver_gets_no_more_deliveries(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    [task_id] = enqueue_callbacks(ledger)
    end(ledger, [task_id])

    state = outbox.report(claim(fake_redis, outbox), DeliveryResult.GONE, problem="gone")

    assert state is CallbackState.FAILED
    assert callback(ledger, task_id) == Callback(CallbackState.FAILED, 1, None, "gone")
    assert is_outbox_empty(fake_redis)


def test_deliveries_are_given_up_in_time(ledger: Ledger, fake_redis: Redis) -> None:
    impatient = Outbox(fake_redis, lease_s=30, keep_s=0)
    ids = enqueue_callbacks(ledger, 250)
    end(ledger, ids)

    state = impatient.report(claim(fake_redis, impatient), DeliveryResult.FAILED, problem="no answer", responded=False)
    let_time_pass(fake_redis)
    next_delivery = impatient.claim()

    assert (state, next_delivery) == (CallbackState.FAILED, None)
    assert {callback(ledger, task_id).state for task_id in ids} == {CallbackState.FAILED}
    assert is_outbox_empty(fake_redis)


def test_all_urls_of_a_silent_receiver_pause(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    end(ledger, [*enqueue_callbacks(ledger, url=URL), *enqueue_callbacks(ledger, url=OTHER)])
    first = claim(fake_redis, outbox)
    end(ledger, enqueue_callbacks(ledger, url=ELSEWHERE))

    outbox.report(first, DeliveryResult.FAILED, responded=False)

    for url in fake_redis.zrange(CALLBACK_DUE, 0, -1):
        fake_redis.zadd(CALLBACK_DUE, {url: 0})
    delivery = outbox.claim()
    assert delivery is not None
    assert delivery.url == ELSEWHERE
    assert outbox.claim() is None


def test_concurrent_deliveries_are_limited_by_receiver(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    end(ledger, [task_id for number in range(9) for task_id in enqueue_callbacks(ledger, url=f"{URL}/{number}")])
    end(ledger, enqueue_callbacks(ledger, url=ELSEWHERE))
    let_time_pass(fake_redis)

    claimed = [delivery for _ in range(10) if (delivery := outbox.claim())]

    assert len(claimed) == 5
    assert ELSEWHERE in {delivery.url for delivery in claimed}


def test_a_free_slot_goes_to_a_waiting_url(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    end(ledger, [task_id for number in range(30) for task_id in enqueue_callbacks(ledger, url=f"{URL}/{number}")])
    let_time_pass(fake_redis)

    delivered, under_way = [], [delivery for _ in range(9) if (delivery := outbox.claim())]
    while under_way:
        delivered.append(under_way.pop(0))
        outbox.report(delivered[-1], DeliveryResult.ACCEPTED)
        under_way += [delivery] if (delivery := outbox.claim()) else []

    assert len({delivery.url for delivery in delivered}) == 30
    assert is_outbox_empty(fake_redis)


def test_waiting_urls_follow_when_the_receiver_is_back(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    end(ledger, [task_id for number in range(30) for task_id in enqueue_callbacks(ledger, url=f"{URL}/{number}")])
    let_time_pass(fake_redis)
    for delivery in [delivery for _ in range(9) if (delivery := outbox.claim())]:
        outbox.report(delivery, DeliveryResult.FAILED, responded=False)

    delivered = []
    let_time_pass(fake_redis)
    while delivery := outbox.claim():
        delivered.append(delivery)
        outbox.report(delivery, DeliveryResult.ACCEPTED)

    assert len({delivery.url for delivery in delivered}) == 30
    assert is_outbox_empty(fake_redis)


def test_waiting_urls_follow_after_dead_deliverers(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    end(ledger, [task_id for number in range(9) for task_id in enqueue_callbacks(ledger, url=f"{URL}/{number}")])
    let_time_pass(fake_redis)
    abandoned = [delivery for _ in range(9) if (delivery := outbox.claim())]

    delivered = []
    let_time_pass(fake_redis)
    while delivery := outbox.claim():
        delivered.append(delivery)
        outbox.report(delivery, DeliveryResult.ACCEPTED)

    assert len(abandoned) == 4
    assert len({delivery.url for delivery in delivered}) == 9


def test_a_dead_receiver_delays_no_other(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    end(ledger, [task_id for number in range(150) for task_id in enqueue_callbacks(ledger, url=f"{URL}/{number}")])
    outbox.report(claim(fake_redis, outbox), DeliveryResult.FAILED, responded=False)
    end(ledger, enqueue_callbacks(ledger, url=ELSEWHERE))
    for due, url in enumerate(sorted(fake_redis.zrange(CALLBACK_DUE, 0, -1), key=ELSEWHERE.encode().__eq__)):
        fake_redis.zadd(CALLBACK_DUE, {url: due})

    delivery = outbox.claim()

    assert delivery is not None
    assert delivery.url == ELSEWHERE


def test_the_outbox_is_bounded_and_counts_drops(fake_redis: Redis) -> None:
    small = Ledger(fake_redis, max_open=1000, finished_keep_s=60, failed_keep_s=600, max_callbacks_bytes=400_000)
    ids = enqueue_callbacks(small, 250)

    dropped = end(small, ids)

    states = [callback(small, task_id).state for task_id in ids]
    assert 0 < dropped == states.count(CallbackState.DROPPED) < 250
    assert int(fake_redis.hget(CALLBACK_BYTES, "") or 0) <= 100_000
    assert end(small, enqueue_callbacks(small, url=ELSEWHERE)) == 0


def test_callbacks_are_counted_by_state(fake_redis: Redis) -> None:
    small = Ledger(fake_redis, max_open=1000, finished_keep_s=60, failed_keep_s=600, max_callbacks_bytes=400_000)
    outbox, impatient = (Outbox(fake_redis, lease_s=30, keep_s=keep_s) for keep_s in (3600, 0))
    end(small, enqueue_callbacks(small, 2))
    outbox.report(claim(fake_redis, outbox), DeliveryResult.ACCEPTED)
    end(small, enqueue_callbacks(small, 3))
    outbox.report(claim(fake_redis, outbox), DeliveryResult.GONE)
    end(small, enqueue_callbacks(small, 4))
    impatient.report(claim(fake_redis, impatient), DeliveryResult.FAILED)
    dropped = end(small, enqueue_callbacks(small, 250))
    outbox.report(claim(fake_redis, outbox), DeliveryResult.FAILED)

    callbacks = read_stats(fake_redis).callbacks

    assert callbacks == {
        CallbackState.PENDING: 250 - dropped,
        CallbackState.DELIVERED: 2,
        CallbackState.FAILED: 7,
        CallbackState.DROPPED: dropped,
    }


@pytest.mark.parametrize(
    ("result", "keep_s"),
    [(DeliveryResult.ACCEPTED, 60), (DeliveryResult.GONE, 60), (DeliveryResult.FAILED, 60), (DeliveryResult.FAILED, 0)],
)
def test_urls_are_listed_by_their_oldest_callback(
    ledger: Ledger, fake_redis: Redis, result: DeliveryResult, keep_s: float
) -> None:
    outbox = Outbox(fake_redis, lease_s=30, keep_s=keep_s)
    for _ in range(3):
        end(ledger, [task_id for url in (URL, OTHER) for task_id in enqueue_callbacks(ledger, 70, url=url)])
    end(ledger, enqueue_callbacks(ledger, url=ELSEWHERE))

    for _ in range(4):
        let_time_pass(fake_redis)
        if delivery := outbox.claim():
            outbox.report(delivery, result)

        assert dict(fake_redis.zrange(CALLBACK_OLDEST, 0, -1, withscores=True)) == first_ends(fake_redis)


def first_ends(redis: Redis) -> dict[bytes, float]:
    """Return the time of each URL's first waiting callback, as recorded in its entry."""
    keys = list(redis.scan_iter(f"{CALLBACK_ENDS}*"))
    firsts = [redis.lindex(key, 0) or b"" for key in keys]
    return {
        key.removeprefix(CALLBACK_ENDS.encode()): float(entry.split()[1])
        for key, entry in zip(keys, firsts, strict=True)
    }


def test_a_retried_task_has_another_callback(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    ids = enqueue_callbacks(ledger)
    end(ledger, ids, State.FAILED)
    first = claim(fake_redis, outbox)
    ledger.retry(ids)

    outbox.report(first, DeliveryResult.ACCEPTED)
    in_between = callback(ledger, ids[0])
    end(ledger, ids)

    assert in_between == Callback()
    assert [ended.fields["state"] for ended in claim(fake_redis, outbox).tasks] == ["succeeded"]


def test_an_expired_task_still_has_its_callback(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    ids = enqueue_callbacks(ledger)
    end(ledger, ids)
    fake_redis.delete(TASK + ids[0])

    delivery = claim(fake_redis, outbox)
    outbox.report(delivery, DeliveryResult.ACCEPTED)

    assert [ended.fields["filepath"] for ended in delivery.tasks] == ["dir/ä 0"]
    assert fake_redis.exists(TASK + ids[0]) == 0
