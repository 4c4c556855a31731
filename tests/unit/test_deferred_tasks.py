"""Temporary faults: tasks wait for their next try without a message, and hosts get limits that adapt."""

from collections.abc import Callable

import pytest
from redis import Redis

from common.queue.deferred_tasks import DeferredTasks
from common.queue.host_limits import NO_OUTCOME, SUCCESS, Fault, HostLimit, HostSlots
from common.queue.items import AddItem, NotEnqueued
from common.queue.jobs import SINGLE_QUEUE
from common.queue.keys import DEFERRED, DEFERRED_BY_HOST, HOST, HOSTS_DUE, OPEN, TASK, WAITING
from common.queue.ledger import Ledger
from common.queue.stale_tasks import StaleTasks
from common.queue.stats import read_stats
from common.queue.tasks import State
from common.redis.clock import now_ms
from support.tasks import HOST as NAME
from support.tasks import accept_urls, begin, fail, ledger_in, succeed, task_of
from workers.host_limiter import HostLimiter
from workers.scheduler import LONGEST_SLEEP_S, SHORTEST_SLEEP_S, Scheduler

LIMIT = HostLimit(slots=0, lease_s=20, retry_for_s=3600)
REJECTION = Fault(code="http_rate_limited", error="status 429", is_rejection=True, retry_after_s=700)
FAULT = Fault(code="connect_failed", error="cannot be connected to")


@pytest.fixture
def ledger(fake_redis: Redis) -> Ledger:
    return ledger_in(fake_redis, max_open=100, host_limit=LIMIT)


@pytest.fixture
def slots(fake_redis: Redis) -> HostSlots:
    return HostSlots(fake_redis, LIMIT)


@pytest.fixture
def deferred(fake_redis: Redis) -> DeferredTasks:
    return DeferredTasks(fake_redis)


@pytest.fixture
def defer(ledger: Ledger) -> Callable[..., str]:
    """Accept and begin a task whose host has a fault, and return its id."""

    def begin_and_defer(fault: Fault = FAULT) -> str:
        [task] = accept_urls(ledger, 1)
        begin(ledger, task.id)
        assert ledger.defer(task.id, fault)
        return task.id

    return begin_and_defer


@pytest.fixture
def end_pause(fake_redis: Redis) -> Callable[[], None]:
    """Let the pause of the host be over, and the next download begin."""
    return lambda: fake_redis.hset(HOST + NAME, mapping={"until": 0, "next": 0})


def reject(slots: HostSlots, task_id: str = "other") -> None:
    slots.release(NAME, task_id, REJECTION)


def test_a_deferred_task_shows_next_try_and_cause(fake_redis: Redis, ledger: Ledger, defer: Callable[..., str]) -> None:
    now = now_ms(fake_redis)

    task = task_of(ledger, defer(REJECTION))

    assert (task.state, task.attempts, task.started) == (State.PENDING, 1, None)
    assert task.cause == ("http_rate_limited", "status 429")
    assert task.next_try is not None
    assert now + 700_000 <= task.next_try <= now_ms(fake_redis) + 760_000


def test_waits_double_from_try_to_try(fake_redis: Redis, ledger: Ledger) -> None:
    [task] = accept_urls(ledger, 1)
    waits = []
    for _ in range(4):
        begin(ledger, task.id)
        before = now_ms(fake_redis)
        ledger.defer(task.id, FAULT)
        due = fake_redis.zscore(DEFERRED, task.id) or 0
        waits.append((due - before, due - now_ms(fake_redis)))

    # Each wait is from a half of its longest value to that value.
    assert all(
        since_before >= 1000 * 2**nth and since_after <= 2000 * 2**nth
        for nth, (since_before, since_after) in enumerate(waits)
    ), waits


def test_a_task_tried_for_long_enough_is_not_deferred(
    fake_redis: Redis, ledger: Ledger, defer: Callable[..., str]
) -> None:
    task_id = defer()
    fake_redis.hincrby(TASK + task_id, "faulty_since", -3_600_000)
    begin(ledger, task_id)

    assert ledger.defer(task_id, FAULT) is False


def test_the_last_try_is_at_the_end(fake_redis: Redis, ledger: Ledger, defer: Callable[..., str]) -> None:
    task_id = defer()
    since = fake_redis.hincrby(TASK + task_id, "faulty_since", -3_500_000)
    begin(ledger, task_id)

    ledger.defer(task_id, Fault(code="http_server_error", error="status 503", retry_after_s=300))

    assert fake_redis.zscore(DEFERRED, task_id) == since + 3_600_000


def test_without_time_for_retries_nothing_is_deferred(fake_redis: Redis) -> None:
    ledger = ledger_in(fake_redis, host_limit=HostLimit(slots=0, lease_s=20, retry_for_s=0))
    [task] = accept_urls(ledger, 1)
    begin(ledger, task.id)

    assert ledger.defer(task.id, FAULT) is False


def test_a_task_that_ended_before_is_not_deferred(fake_redis: Redis, ledger: Ledger) -> None:
    [task] = accept_urls(ledger, 1)
    begin(ledger, task.id)
    succeed(ledger, task.id)

    assert ledger.defer(task.id, FAULT)
    assert task_of(ledger, task.id).state is State.SUCCEEDED
    assert fake_redis.zcard(DEFERRED) == 0


def test_a_try_does_not_count_as_a_lost_worker(ledger: Ledger, defer: Callable[..., str]) -> None:
    task_id = defer()

    claim = begin(ledger, task_id)

    assert claim.unfinished == 1
    assert task_of(ledger, task_id).attempts == 2


def test_due_tasks_are_taken_once(fake_redis: Redis, deferred: DeferredTasks, defer: Callable[..., str]) -> None:
    due, later = defer(), defer()
    fake_redis.zadd(DEFERRED, {due: now_ms(fake_redis) - 1, later: now_ms(fake_redis) + 500_000})

    taken = [deferred.take_due(), deferred.take_due()]

    assert [[(task.task_id, task.queue) for task in one.tasks] for one in taken] == [[(due, SINGLE_QUEUE)], []]
    assert 400 < (taken[1].next_in_s or 0) <= 500
    assert fake_redis.zrange(DEFERRED, 0, -1) == [later.encode()]
    assert fake_redis.hgetall(DEFERRED_BY_HOST) == {NAME.encode(): b"1"}


def test_a_next_try_of_a_later_clock_is_now(
    fake_redis: Redis, deferred: DeferredTasks, defer: Callable[..., str]
) -> None:
    task_id = defer()
    fake_redis.zadd(DEFERRED, {task_id: now_ms(fake_redis) + 3_600_000})

    assert [task.task_id for task in deferred.take_due().tasks] == [task_id]


@pytest.mark.parametrize("end", ["cancel", "fail", "succeed"])
def test_an_ended_task_is_not_deferred(
    fake_redis: Redis, ledger: Ledger, deferred: DeferredTasks, defer: Callable[..., str], end: str
) -> None:
    accept_urls(ledger, 1)
    task_id = defer()
    fake_redis.zadd(DEFERRED, {task_id: 1})

    ends = {
        "cancel": lambda: ledger.cancel_many([task_id]),
        "fail": lambda: fail(ledger, task_id),
        "succeed": lambda: succeed(ledger, task_id),
    }
    ends[end]()

    assert deferred.take_due().tasks == []
    assert (fake_redis.zcard(DEFERRED), fake_redis.hgetall(DEFERRED_BY_HOST)) == (0, {})
    assert task_of(ledger, task_id).next_try is None


def test_a_retried_task_begins_its_tries_anew(ledger: Ledger, fake_redis: Redis, defer: Callable[..., str]) -> None:
    task_id = defer()
    begin(ledger, task_id)
    fail(ledger, task_id)

    ledger.retry([task_id])

    assert fake_redis.hmget(TASK + task_id, "tries", "faulty_since", "cause") == [None, None, None]
    assert task_of(ledger, task_id).cause is None


def test_the_sweeper_does_not_enqueue_deferred_tasks(fake_redis: Redis, defer: Callable[..., str]) -> None:
    task_id, stale = defer(), StaleTasks(fake_redis)
    fake_redis.zadd(OPEN, {task_id: 10})

    touched = stale.touch(stale.enqueued_before(20, offset=0, limit=9), at=now_ms(fake_redis))

    assert touched == []


def test_a_task_admitted_by_earlier_versions_is_not_lost(fake_redis: Redis, ledger: Ledger, slots: HostSlots) -> None:
    reject(slots)
    [task] = accept_urls(ledger, 1)
    ledger.begin(task.id)
    fake_redis.zrem(f"{WAITING}{SINGLE_QUEUE}:{NAME}", task.id)
    fake_redis.zadd(OPEN, {task.id: 10})
    stale = StaleTasks(fake_redis)

    touched = stale.touch(stale.enqueued_before(20, offset=0, limit=9), at=now_ms(fake_redis))

    assert [one.task_id for one in touched] == [task.id]


def test_tasks_that_an_earlier_version_ended_are_forgotten(
    fake_redis: Redis, deferred: DeferredTasks, defer: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.queue.deferred_tasks.PAGE", 1)
    ended, waiting = defer(), defer()
    fake_redis.zrem(OPEN, ended)

    forgotten = deferred.purge()

    assert forgotten == 1
    assert fake_redis.zrange(DEFERRED, 0, -1) == [waiting.encode()]
    assert fake_redis.hgetall(DEFERRED_BY_HOST) == {NAME.encode(): b"1"}


def test_deferred_tasks_are_open_and_counted(fake_redis: Redis, defer: Callable[..., str]) -> None:
    defer()

    stats = read_stats(fake_redis)

    assert (stats.open, stats.deferred, stats.in_flight) == (1, 1, 0)


def test_a_host_without_faults_has_no_limits(fake_redis: Redis, ledger: Ledger) -> None:
    claims = [begin(ledger, task.id) for task in accept_urls(ledger, 80)]

    assert not any(claim.has_slot for claim in claims)
    assert fake_redis.hget(HOST + NAME, "rate") is None


def test_a_rejection_pauses_the_host(fake_redis: Redis, ledger: Ledger, slots: HostSlots) -> None:
    first, second = accept_urls(ledger, 2)
    begin(ledger, first.id)
    reject(slots, first.id)

    claim = ledger.begin(second.id)

    assert claim is None
    waiting = task_of(ledger, second.id)
    assert (waiting.state, waiting.attempts, waiting.cause) == (State.PENDING, 0, ("http_rate_limited", "status 429"))
    assert 600 < ledger.paused_for_s(NAME) <= 700
    assert (waiting.next_try or 0) > now_ms(fake_redis) + 600_000


def test_other_hosts_are_not_paused(ledger: Ledger, slots: HostSlots) -> None:
    reject(slots)
    [task] = accept_urls(ledger, 1, host="other.example")

    assert ledger.begin(task.id) is not None
    assert ledger.paused_for_s("other.example") == 0


def test_a_single_fault_without_rejection_limits_nothing(ledger: Ledger, slots: HostSlots) -> None:
    slots.release(NAME, "other", FAULT)
    [task] = accept_urls(ledger, 1)

    claim = begin(ledger, task.id)

    # The success of this download must be reported: it ends the row of faults.
    assert claim.has_slot


def test_three_faults_in_a_row_pause_the_host(fake_redis: Redis, ledger: Ledger, slots: HostSlots) -> None:
    for outcome in (FAULT, FAULT, SUCCESS, FAULT, FAULT):
        slots.release(NAME, "other", outcome)
    assert ledger.paused_for_s(NAME) == 0

    slots.release(NAME, "other", FAULT)

    assert fake_redis.hget(HOST + NAME, "until") is not None
    assert fake_redis.hget(HOST + NAME, "rate") is not None


def test_faults_halve_the_limits_and_successes_raise_them(fake_redis: Redis, slots: HostSlots) -> None:
    fake_redis.hset(HOST + NAME, mapping={"rate": 40, "slots": 16, "recent": 100})

    reject(slots)
    reject(slots)
    halved = [float(value or 0) for value in fake_redis.hmget(HOST + NAME, "rate", "slots")]
    for _ in range(20):
        slots.release(NAME, "other", SUCCESS)
    raised = [float(value or 0) for value in fake_redis.hmget(HOST + NAME, "rate", "slots")]

    # The second rejection is of the same moment.
    assert halved == [20, 8]
    # Twenty downloads at twenty a second raise the rate by a tenth, and sixteen at once the slots by two.
    assert raised[0] == pytest.approx(21.95, abs=0.1)
    assert raised[1] == pytest.approx(10.2, abs=0.1)


def test_faults_without_a_success_only_lengthen_the_pause(
    fake_redis: Redis, slots: HostSlots, end_pause: Callable[[], None]
) -> None:
    pauses = []
    for _ in range(6):
        before = now_ms(fake_redis)
        slots.release(NAME, "other", Fault(code="http_server_error", error="status 503", is_rejection=True))
        until = int(fake_redis.hget(HOST + NAME, "until") or 0)
        pauses.append((until - before, until - now_ms(fake_redis)))
        rate = fake_redis.hget(HOST + NAME, "rate")
        end_pause()
        fake_redis.hset(HOST + NAME, "cut", 0)

    longest = [1000, 2000, 4000, 8000, 16_000, 20_000]
    assert rate == b"0.500"
    assert all(
        since_before >= most / 2 and since_after <= most
        for most, (since_before, since_after) in zip(longest, pauses, strict=True)
    ), pauses


def test_the_first_limit_is_half_of_the_measured_rate(fake_redis: Redis, ledger: Ledger, slots: HostSlots) -> None:
    [task] = accept_urls(ledger, 1)
    begin(ledger, task.id)
    starts = fake_redis.hget(HOST + NAME, "starts")
    # A second that does not end during the test.
    fake_redis.hset(HOST + NAME, mapping={"starts": 60, "window": now_ms(fake_redis) + 100_000})

    reject(slots)

    assert starts == b"1"
    assert fake_redis.hget(HOST + NAME, "rate") == b"30.000"


def test_waiting_tasks_begin_at_the_rate_of_the_host(
    fake_redis: Redis, ledger: Ledger, slots: HostSlots, end_pause: Callable[[], None]
) -> None:
    reject(slots)
    tasks = accept_urls(ledger, 40)
    for task in tasks:
        ledger.begin(task.id)
    fake_redis.hset(HOST + NAME, mapping={"rate": 20, "slots": 30})
    end_pause()

    admitted = slots.admit(NAME)
    later = now_ms(fake_redis) + 100_000
    fake_redis.hset(HOST + NAME, "next", later)

    # An unused rate is kept for half a second.
    assert [task.task_id for task in admitted] == [task.id for task in tasks[:11]]
    assert slots.admit(NAME) == []
    assert fake_redis.zscore(HOSTS_DUE, NAME) == later


def test_a_new_task_does_not_overtake_waiting_ones(
    ledger: Ledger, slots: HostSlots, end_pause: Callable[[], None]
) -> None:
    reject(slots)
    [waiting] = accept_urls(ledger, 1)
    ledger.begin(waiting.id)
    end_pause()
    [new] = accept_urls(ledger, 1)

    assert ledger.begin(new.id) is None
    assert slots.admit(NAME)[0].task_id == waiting.id
    assert begin(ledger, waiting.id).has_slot


def test_concurrent_downloads_are_limited_after_faults(
    fake_redis: Redis, ledger: Ledger, slots: HostSlots, end_pause: Callable[[], None]
) -> None:
    reject(slots)
    fake_redis.hset(HOST + NAME, mapping={"rate": 1000, "slots": 2})
    end_pause()
    first, second, third = accept_urls(ledger, 3)
    claims = [ledger.begin(first.id), ledger.begin(second.id), ledger.begin(third.id)]

    enqueued = slots.release(NAME, first.id, NO_OUTCOME)

    assert [claim is not None for claim in claims] == [True, True, False]
    assert [task.task_id for task in enqueued] == [third.id]


def test_a_host_without_a_free_slot_is_checked_rarely(
    fake_redis: Redis, ledger: Ledger, slots: HostSlots, end_pause: Callable[[], None]
) -> None:
    reject(slots)
    fake_redis.hset(HOST + NAME, mapping={"rate": 1000, "slots": 1})
    end_pause()
    for task in accept_urls(ledger, 2):
        ledger.begin(task.id)
    now = now_ms(fake_redis)

    admitted = slots.admit(NAME)

    assert admitted == []
    assert (fake_redis.zscore(HOSTS_DUE, NAME) or 0) >= now + 1000


def test_the_next_page_of_waiting_tasks_begins_soon(
    fake_redis: Redis, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.queue.host_limits.MAX_ADMITTED", 1)
    slots = HostSlots(fake_redis, LIMIT)
    reject(slots)
    for task in accept_urls(ledger, 2):
        ledger.begin(task.id)
    fake_redis.delete(HOST + NAME)

    admitted = slots.admit(NAME)

    assert len(admitted) == 1
    assert (fake_redis.zscore(HOSTS_DUE, NAME) or 0) < now_ms(fake_redis) + 500


def test_tasks_of_a_given_up_host_fail_untried(fake_redis: Redis, ledger: Ledger, slots: HostSlots) -> None:
    for _ in range(3):
        slots.release(NAME, "other", FAULT)
    old, new = accept_urls(ledger, 2)
    for task in (old, new):
        ledger.begin(task.id)
    fake_redis.hincrby(HOST + NAME, "since", -3_900_000)
    fake_redis.hincrby(TASK + old.id, "accepted", -3_900_000)

    enqueued = slots.admit(NAME)

    assert [task.task_id for task in enqueued] == [old.id]
    assert begin(ledger, old.id).given_up == ("connect_failed", "cannot be connected to")


@pytest.mark.parametrize("must_wait", [False, True])
def test_a_retried_task_asks_its_repaired_host(
    fake_redis: Redis, slots: HostSlots, end_pause: Callable[[], None], *, must_wait: bool
) -> None:
    ledger = ledger_in(fake_redis, keep_s=7200, host_limit=LIMIT)
    [task] = accept_urls(ledger, 1)
    fail(ledger, task.id)
    reject(slots)
    fake_redis.hincrby(HOST + NAME, "since", -3_900_000)
    fake_redis.hincrby(TASK + task.id, "accepted", -4_000_000)

    ledger.retry([task.id])
    if must_wait:
        assert ledger.begin(task.id) is None
    end_pause()
    slots.admit(NAME)

    claim = begin(ledger, task.id)
    assert (claim.given_up, claim.has_slot) == (None, True)


def test_without_retries_one_fault_gives_up_no_host(fake_redis: Redis) -> None:
    limit = HostLimit(slots=0, lease_s=20, retry_for_s=0)
    ledger, slots = ledger_in(fake_redis, host_limit=limit), HostSlots(fake_redis, limit)
    slots.release(NAME, "other", FAULT)
    [task] = accept_urls(ledger, 1)

    assert begin(ledger, task.id).given_up is None


def test_a_host_holds_a_tenth_of_the_backlog(ledger: Ledger, defer: Callable[..., str]) -> None:
    for _ in range(10):
        defer()

    def add(host: str) -> object:
        return ledger.enqueue([AddItem(filepath="a", url=f"http://{host}/a", host=host)], queue=SINGLE_QUEUE)[0]

    assert add(NAME) is NotEnqueued.HOST
    assert not isinstance(add("other.example"), NotEnqueued)
    assert not isinstance(add(""), NotEnqueued)


def test_the_waker_enqueues_due_tasks_of_hosts(
    fake_redis: Redis,
    ledger: Ledger,
    slots: HostSlots,
    deferred: DeferredTasks,
    defer: Callable[..., str],
    end_pause: Callable[[], None],
) -> None:
    sent: list[tuple[str, str]] = []
    scheduler = Scheduler(
        deferred, HostLimiter(slots, lambda ids, queue, _at: sent.extend((one, queue) for one in ids))
    )
    failed = defer()
    fake_redis.zadd(DEFERRED, {failed: now_ms(fake_redis) + 500_000})
    reject(slots)
    [waiting] = accept_urls(ledger, 1)
    ledger.begin(waiting.id)
    sleeps = [scheduler.enqueue_due()]
    nothing = list(sent)
    fake_redis.zadd(DEFERRED, {failed: 1})
    fake_redis.zadd(HOSTS_DUE, {NAME: 1})
    end_pause()

    sleeps.append(scheduler.enqueue_due())

    assert nothing == []
    assert sent == [(failed, "match-front"), (waiting.id, "match-front")]
    assert sleeps == [LONGEST_SLEEP_S, SHORTEST_SLEEP_S]
