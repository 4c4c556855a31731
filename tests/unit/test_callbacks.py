"""The outbox: what ended is told to its URL, once in effect, and one receiver never stands in another's way."""

import pytest
from redis import Redis

from common.queue.callbacks import Callback, CallState, Delivery, Outbox, Told
from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE, AddJob, Order
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
from common.queue.tasks import Closing, State, task_of
from common.redis.clock import now_ms

URL = "https://hooks.example.org:443/one"
OTHER = "https://hooks.example.org:443/two"
ELSEWHERE = "https://elsewhere.example.org:443/"


@pytest.fixture
def ledger(fake_redis: Redis) -> Ledger:
    return Ledger(fake_redis, max_open=1000, finished_keep_s=60, failed_keep_s=600, max_callbacks_bytes=4_000_000)


@pytest.fixture
def outbox(fake_redis: Redis) -> Outbox:
    return Outbox(fake_redis, lease_s=30, keep_s=3600)


def enter(ledger: Ledger, count: int = 1, *, url: str = URL, queue: str = SINGLE_QUEUE) -> list[str]:
    jobs = [AddJob(filepath=f"dir/ä {number}", url="http://example.org/a") for number in range(count)]
    return [entry.task.id for entry in ledger.enter([Order(job=job, callback=url) for job in jobs], queue=queue)]


def end(ledger: Ledger, task_ids: list[str], state: State = State.SUCCEEDED) -> int:
    reason = {"code": "http_status", "error": "404"} if state is State.FAILED else {}
    return ledger.close([Closing(task_id=task_id, state=state, **reason) for task_id in task_ids])


def let_time_pass(redis: Redis) -> None:
    """Make due whatever waits, by whatever pause or lease."""
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
    task = ledger.task(task_id)
    assert task is not None
    assert task.callback is not None
    return task.callback


def nothing_is_left(redis: Redis) -> bool:
    kept = {key for key in redis.scan_iter("match:callbacks:*") if not key.startswith(CALLBACK_RECEIVER.encode())}
    counted = redis.hget(CALLBACK_COUNTS, CallState.PENDING) == b"0" and redis.hgetall(CALLBACK_BYTES) == {b"": b"0"}
    return kept <= {CALLBACK_BYTES.encode(), CALLBACK_COUNTS.encode()} and counted


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.SUPERSEDED, State.FAILED, State.CANCELLED])
def test_every_end_of_a_task_is_told_as_it_was(ledger: Ledger, outbox: Outbox, fake_redis: Redis, state: State) -> None:
    [task_id] = enter(ledger)
    end(ledger, [task_id], state)

    [ended] = claim(fake_redis, outbox).ends

    told, now = task_of(task_id, ended.fields), ledger.task(task_id)
    assert now is not None
    assert (told.id, told.state, told.filepath, told.finished) == (task_id, state, "dir/ä 0", now.finished)
    assert (told.code, told.error) == (("http_status", "404") if state is State.FAILED else (None, None))


def test_a_cancelled_task_is_told(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    [task_id] = enter(ledger)

    ledger.cancel(task_id)

    [ended] = claim(fake_redis, outbox).ends
    assert (ended.task_id, ended.fields["state"]) == (task_id, "cancelled")


def test_a_task_without_a_callback_leaves_nothing_in_the_outbox(ledger: Ledger, fake_redis: Redis) -> None:
    [task] = ledger.accept([AddJob(filepath="a", url="http://example.org/a")], queue=SINGLE_QUEUE)

    end(ledger, [task.id])

    assert list(fake_redis.scan_iter("match:callbacks:*")) == []
    assert getattr(ledger.task(task.id), "callback", "unknown") is None


def test_a_second_end_that_changes_nothing_is_not_told(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    ids = enter(ledger)
    end(ledger, ids)

    end(ledger, ids, State.FAILED)

    assert [ended.fields["state"] for ended in claim(fake_redis, outbox).ends] == ["succeeded"]


def test_ends_for_one_url_travel_together_and_the_rest_follows(
    ledger: Ledger, outbox: Outbox, fake_redis: Redis
) -> None:
    ids = enter(ledger, 250, queue=BATCH_QUEUE)
    end(ledger, ids)

    deliveries = []
    for _ in range(3):
        deliveries.append(claim(fake_redis, outbox))
        outbox.report(deliveries[-1], Told.TAKEN)

    assert [len(delivery.ends) for delivery in deliveries] == [100, 100, 50]
    assert [ended.task_id for delivery in deliveries for ended in delivery.ends] == ids
    assert len({delivery.id for delivery in deliveries}) == 3
    assert {callback(ledger, task_id).state for task_id in ids} == {CallState.DELIVERED}
    assert nothing_is_left(fake_redis)


def test_a_single_end_lingers_a_moment_and_a_full_delivery_goes_at_once(ledger: Ledger, outbox: Outbox) -> None:
    ids = enter(ledger, 100)
    end(ledger, ids[:99])
    early = outbox.claim()

    end(ledger, ids[99:])

    delivery = outbox.claim()
    assert early is None
    assert delivery is not None
    assert len(delivery.ends) == 100


def test_a_delivery_is_one_callers_until_its_time_is_over(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    end(ledger, enter(ledger))
    first = claim(fake_redis, outbox)
    meanwhile = outbox.claim()

    second = claim(fake_redis, outbox)

    assert meanwhile is None
    assert (second.id, second.ends, second.attempt) == (first.id, first.ends, 2)
    assert outbox.report(first, Told.FAILED) is None
    assert outbox.report(second, Told.TAKEN) is CallState.DELIVERED


def test_what_fails_is_tried_again_with_the_same_id_and_ends_and_tells_so(
    ledger: Ledger, outbox: Outbox, fake_redis: Redis
) -> None:
    [first, second] = enter(ledger, 2)
    end(ledger, [first])
    delivery = claim(fake_redis, outbox)

    outbox.report(delivery, Told.FAILED, problem="hooks.example.org answered with status 500")
    end(ledger, [second])

    told = callback(ledger, first)
    assert (told.state, told.attempts, told.error) == (
        CallState.PENDING,
        1,
        "hooks.example.org answered with status 500",
    )
    assert told.next is not None
    assert 0 < told.next - now_ms(fake_redis) <= 5000
    again = claim(fake_redis, outbox)
    assert (again.id, again.ends) == (delivery.id, delivery.ends)
    outbox.report(again, Told.TAKEN)
    assert callback(ledger, first) == Callback(CallState.DELIVERED, 2)
    assert [ended.task_id for ended in claim(fake_redis, outbox).ends] == [second]


def test_pauses_double_up_to_an_hour(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    [task_id] = enter(ledger)
    end(ledger, [task_id])

    pauses = []
    for _ in range(12):
        outbox.report(claim(fake_redis, outbox), Told.FAILED)
        pauses.append(((callback(ledger, task_id).next or 0) - now_ms(fake_redis)) / 1000)

    assert pauses[:4] == pytest.approx([5, 10, 20, 40], abs=1)
    assert pauses[-2:] == pytest.approx([3600, 3600], abs=1)


def test_a_receiver_that_is_gone_is_asked_no_more(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    [task_id] = enter(ledger)
    end(ledger, [task_id])

    came_to = outbox.report(claim(fake_redis, outbox), Told.GONE, problem="gone")

    assert came_to is CallState.FAILED
    assert callback(ledger, task_id) == Callback(CallState.FAILED, 1, None, "gone")
    assert nothing_is_left(fake_redis)


def test_what_was_not_taken_in_time_is_given_up_with_all_that_is_as_old(ledger: Ledger, fake_redis: Redis) -> None:
    impatient = Outbox(fake_redis, lease_s=30, keep_s=0)
    ids = enter(ledger, 250)
    end(ledger, ids)

    came_to = impatient.report(claim(fake_redis, impatient), Told.FAILED, problem="no answer", answered=False)
    let_time_pass(fake_redis)
    more = impatient.claim()

    assert (came_to, more) == (CallState.FAILED, None)
    assert {callback(ledger, task_id).state for task_id in ids} == {CallState.FAILED}
    assert nothing_is_left(fake_redis)


def test_a_receiver_that_does_not_answer_is_left_alone_with_all_its_urls(
    ledger: Ledger, outbox: Outbox, fake_redis: Redis
) -> None:
    end(ledger, [*enter(ledger, url=URL), *enter(ledger, url=OTHER)])
    first = claim(fake_redis, outbox)
    end(ledger, enter(ledger, url=ELSEWHERE))

    outbox.report(first, Told.FAILED, answered=False)

    for url in fake_redis.zrange(CALLBACK_DUE, 0, -1):
        fake_redis.zadd(CALLBACK_DUE, {url: 0})
    found = outbox.claim()
    assert found is not None
    assert found.url == ELSEWHERE
    assert outbox.claim() is None


def test_a_receiver_has_so_many_places_at_once_and_others_have_theirs(
    ledger: Ledger, outbox: Outbox, fake_redis: Redis
) -> None:
    end(ledger, [task_id for number in range(9) for task_id in enter(ledger, url=f"{URL}/{number}")])
    end(ledger, enter(ledger, url=ELSEWHERE))
    let_time_pass(fake_redis)

    claimed = [delivery for _ in range(10) if (delivery := outbox.claim())]

    assert len(claimed) == 5
    assert ELSEWHERE in {delivery.url for delivery in claimed}


def test_what_waits_for_a_place_at_a_receiver_goes_as_soon_as_one_is_free(
    ledger: Ledger, outbox: Outbox, fake_redis: Redis
) -> None:
    end(ledger, [task_id for number in range(30) for task_id in enter(ledger, url=f"{URL}/{number}")])
    let_time_pass(fake_redis)

    told, under_way = [], [delivery for _ in range(9) if (delivery := outbox.claim())]
    while under_way:
        told.append(under_way.pop(0))
        outbox.report(told[-1], Told.TAKEN)
        under_way += [delivery] if (delivery := outbox.claim()) else []

    assert len({delivery.url for delivery in told}) == 30
    assert nothing_is_left(fake_redis)


def test_what_waits_for_a_receiver_that_fails_is_tried_when_it_is_back(
    ledger: Ledger, outbox: Outbox, fake_redis: Redis
) -> None:
    end(ledger, [task_id for number in range(30) for task_id in enter(ledger, url=f"{URL}/{number}")])
    let_time_pass(fake_redis)
    for delivery in [found for _ in range(9) if (found := outbox.claim())]:
        outbox.report(delivery, Told.FAILED, answered=False)

    told = []
    let_time_pass(fake_redis)
    while delivery := outbox.claim():
        told.append(delivery)
        outbox.report(delivery, Told.TAKEN)

    assert len({delivery.url for delivery in told}) == 30
    assert nothing_is_left(fake_redis)


def test_what_waits_for_a_receiver_goes_on_after_those_that_sent_to_it_died(
    ledger: Ledger, outbox: Outbox, fake_redis: Redis
) -> None:
    end(ledger, [task_id for number in range(9) for task_id in enter(ledger, url=f"{URL}/{number}")])
    let_time_pass(fake_redis)
    died = [found for _ in range(9) if (found := outbox.claim())]

    told = []
    let_time_pass(fake_redis)
    while delivery := outbox.claim():
        told.append(delivery)
        outbox.report(delivery, Told.TAKEN)

    assert len(died) == 4
    assert len({delivery.url for delivery in told}) == 9


def test_many_urls_of_a_dead_receiver_do_not_hide_another(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    end(ledger, [task_id for number in range(150) for task_id in enter(ledger, url=f"{URL}/{number}")])
    outbox.report(claim(fake_redis, outbox), Told.FAILED, answered=False)
    end(ledger, enter(ledger, url=ELSEWHERE))
    for place, url in enumerate(sorted(fake_redis.zrange(CALLBACK_DUE, 0, -1), key=ELSEWHERE.encode().__eq__)):
        fake_redis.zadd(CALLBACK_DUE, {url: place})

    found = outbox.claim()

    assert found is not None
    assert found.url == ELSEWHERE


def test_the_outbox_is_bounded_and_what_is_dropped_is_told(fake_redis: Redis) -> None:
    small = Ledger(fake_redis, max_open=1000, finished_keep_s=60, failed_keep_s=600, max_callbacks_bytes=400_000)
    ids = enter(small, 250)

    dropped = end(small, ids)

    states = [callback(small, task_id).state for task_id in ids]
    assert 0 < dropped == states.count(CallState.DROPPED) < 250
    assert int(fake_redis.hget(CALLBACK_BYTES, "") or 0) <= 100_000
    assert end(small, enter(small, url=ELSEWHERE)) == 0


def test_each_callback_is_counted_where_it_has_come_to(fake_redis: Redis) -> None:
    small = Ledger(fake_redis, max_open=1000, finished_keep_s=60, failed_keep_s=600, max_callbacks_bytes=400_000)
    outbox, impatient = (Outbox(fake_redis, lease_s=30, keep_s=keep_s) for keep_s in (3600, 0))
    end(small, enter(small, 2))
    outbox.report(claim(fake_redis, outbox), Told.TAKEN)
    end(small, enter(small, 3))
    outbox.report(claim(fake_redis, outbox), Told.GONE)
    end(small, enter(small, 4))
    impatient.report(claim(fake_redis, impatient), Told.FAILED)
    dropped = end(small, enter(small, 250))
    outbox.report(claim(fake_redis, outbox), Told.FAILED)

    callbacks = read_stats(fake_redis).callbacks

    assert callbacks == {
        CallState.PENDING: 250 - dropped,
        CallState.DELIVERED: 2,
        CallState.FAILED: 7,
        CallState.DROPPED: dropped,
    }


@pytest.mark.parametrize(("told", "keep_s"), [(Told.TAKEN, 60), (Told.GONE, 60), (Told.FAILED, 60), (Told.FAILED, 0)])
def test_each_url_stands_under_the_end_that_has_waited_there_longest(
    ledger: Ledger, fake_redis: Redis, told: Told, keep_s: float
) -> None:
    outbox = Outbox(fake_redis, lease_s=30, keep_s=keep_s)
    for _ in range(3):
        end(ledger, [task_id for url in (URL, OTHER) for task_id in enter(ledger, 70, url=url)])
    end(ledger, enter(ledger, url=ELSEWHERE))

    for _ in range(4):
        let_time_pass(fake_redis)
        if delivery := outbox.claim():
            outbox.report(delivery, told)

        assert dict(fake_redis.zrange(CALLBACK_OLDEST, 0, -1, withscores=True)) == first_ends(fake_redis)


def first_ends(redis: Redis) -> dict[bytes, float]:
    """Return when the first of the ends that wait for each URL was, as the entries say."""
    keys = list(redis.scan_iter(f"{CALLBACK_ENDS}*"))
    firsts = [redis.lindex(key, 0) or b"" for key in keys]
    return {
        key.removeprefix(CALLBACK_ENDS.encode()): float(entry.split()[1])
        for key, entry in zip(keys, firsts, strict=True)
    }


def test_a_retried_task_that_ends_again_is_told_again(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    ids = enter(ledger)
    end(ledger, ids, State.FAILED)
    first = claim(fake_redis, outbox)
    ledger.retry(ids)

    outbox.report(first, Told.TAKEN)
    in_between = callback(ledger, ids[0])
    end(ledger, ids)

    assert in_between == Callback()
    assert [ended.fields["state"] for ended in claim(fake_redis, outbox).ends] == ["succeeded"]


def test_a_task_that_was_forgotten_is_told_all_the_same(ledger: Ledger, outbox: Outbox, fake_redis: Redis) -> None:
    ids = enter(ledger)
    end(ledger, ids)
    fake_redis.delete(TASK + ids[0])

    delivery = claim(fake_redis, outbox)
    outbox.report(delivery, Told.TAKEN)

    assert [ended.fields["filepath"] for ended in delivery.ends] == ["dir/ä 0"]
    assert fake_redis.exists(TASK + ids[0]) == 0
