"""The ledger: accepted work is never forgotten while it is open, and the order of requests is kept."""

from typing import Any

import pytest
from redis import Redis

from common.errors import InputError, Overloaded, QueueUnavailable
from common.queue.decode_attempts import DecodeAttempts
from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE, AddJob, Origin
from common.queue.keys import ENDED, FAILED, SEQ, TASK
from common.queue.leases import Leases
from common.queue.ledger import Ledger
from common.queue.sequence import SequenceNumbers
from common.queue.stale_tasks import StaleTasks
from common.queue.task_pages import TaskPages
from common.queue.tasks import Closing, Refusal, Sent, State
from common.redis.client import connect
from common.redis.clock import now_ms
from support.tasks import accept, fail

JOB = AddJob(filepath="dir/ä cat.jpg", url="http://example.org/cat.jpg", metadata={"kind": ["cat", 1]})


@pytest.fixture
def sequence(fake_redis: Redis) -> SequenceNumbers:
    return SequenceNumbers(fake_redis)


@pytest.fixture
def decode_attempts(fake_redis: Redis) -> DecodeAttempts:
    return DecodeAttempts(fake_redis)


@pytest.fixture
def stale_tasks(fake_redis: Redis) -> StaleTasks:
    return StaleTasks(fake_redis)


@pytest.fixture
def leases(fake_redis: Redis) -> Leases:
    return Leases(fake_redis)


def test_an_accepted_job_comes_back_as_it_was(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)

    claim = ledger.begin(task_id)

    assert claim is not None
    assert claim.job == JOB


def test_what_a_job_came_from_goes_with_it_and_its_task_names_the_request(ledger: Ledger) -> None:
    origin = Origin(request_id="r-1", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    [accepted] = ledger.accept([JOB], queue=SINGLE_QUEUE, origin=origin)

    claim = ledger.begin(accepted.id)

    assert claim is not None
    assert claim.origin == origin
    ledger.close([Closing(task_id=accepted.id, state=State.SUCCEEDED)])
    task = ledger.task(accepted.id)
    assert task is not None
    assert accepted.request_id == task.request_id == "r-1"


def test_each_end_is_counted_once_by_its_state_and_code(fake_redis: Redis, ledger: Ledger) -> None:
    good, better, bad, unwanted = accept(ledger, *[JOB] * 4)
    ends = [
        Closing(task_id=good, state=State.SUCCEEDED),
        Closing(task_id=better, state=State.SUCCEEDED),
        Closing(task_id=bad, state=State.FAILED, code="http_status", error="a.org answered with status 404"),
    ]

    ledger.close(ends)
    ledger.close(ends)
    ledger.cancel(unwanted)
    ledger.cancel(unwanted)

    assert fake_redis.hgetall(ENDED) == {b"succeeded:": b"2", b"failed:http_status": b"1", b"cancelled:": b"1"}


def test_each_request_has_a_later_place_than_the_one_before(ledger: Ledger, sequence: SequenceNumbers) -> None:
    accepted = ledger.accept([JOB, JOB, JOB], queue=SINGLE_QUEUE)

    seqs = [task.seq for task in accepted] + [sequence.next(), sequence.next()]

    assert seqs == sorted(set(seqs))


def test_places_go_on_rising_when_redis_has_lost_everything(fake_redis: Redis, sequence: SequenceNumbers) -> None:
    before = sequence.next()
    fake_redis.flushall()

    after = sequence.next()

    assert after > before


def test_places_go_on_rising_when_the_clock_is_set_back(fake_redis: Redis, sequence: SequenceNumbers) -> None:
    in_an_hour = sequence.next() + 3_600_000_000
    fake_redis.set(SEQ, in_an_hour)

    after = sequence.next()

    assert after == in_an_hour + 1


def test_work_runs_once_begun_and_counts_its_beginnings(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)

    ledger.begin(task_id)
    ledger.begin(task_id)

    task = ledger.task(task_id)
    assert task is not None
    assert (task.state, task.attempts) == (State.RUNNING, 2)
    assert task.started is not None
    assert task.finished is None


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.SUPERSEDED, State.FAILED, State.CANCELLED])
def test_closed_work_is_never_begun_again(ledger: Ledger, state: State) -> None:
    [task_id] = accept(ledger, JOB)
    ledger.close([Closing(task_id=task_id, state=state, code="gone", error="it is gone")])

    assert ledger.begin(task_id) is None


def test_the_first_end_of_a_task_stands(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)
    ledger.close([Closing(task_id=task_id, state=State.CANCELLED)])

    ledger.close([Closing(task_id=task_id, state=State.SUCCEEDED)])

    task = ledger.task(task_id)
    assert task is not None
    assert task.state is State.CANCELLED


def test_what_another_delivery_stored_has_not_failed(fake_redis: Redis, ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)
    ledger.close([Closing(task_id=task_id, state=State.FAILED, code="http_status", error="404")])

    ledger.close([Closing(task_id=task_id, state=State.SUCCEEDED)])

    task = ledger.task(task_id)
    assert task is not None
    assert (task.state, task.code, task.error) == (State.SUCCEEDED, None, None)
    assert fake_redis.zcard(FAILED) == 0


def test_a_failure_keeps_its_reason(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)

    ledger.close([Closing(task_id=task_id, state=State.FAILED, code="not_an_image", error="it is a page of text")])

    task = ledger.task(task_id)
    assert task is not None
    assert (task.state, task.code, task.error) == (State.FAILED, "not_an_image", "it is a page of text")


def test_open_tasks_never_expire_and_closed_ones_do(fake_redis: Redis, ledger: Ledger) -> None:
    open_id, done_id, failed_id = accept(ledger, JOB, JOB, JOB)

    ledger.close([Closing(task_id=done_id, state=State.SUCCEEDED), Closing(task_id=failed_id, state=State.FAILED)])

    assert fake_redis.ttl(TASK + open_id) == -1
    assert 0 < int(fake_redis.ttl(TASK + done_id)) <= 60
    assert 60 < int(fake_redis.ttl(TASK + failed_id)) <= 600


def test_a_block_is_accepted_whole_or_not_at_all(ledger: Ledger) -> None:
    accept(ledger, *[JOB] * 8)

    with pytest.raises(Overloaded) as overload:
        accept(ledger, *[JOB] * 3)

    assert overload.value.retry_after > 0
    assert ledger.open_count() == 8


def test_what_is_closed_makes_room_again(ledger: Ledger) -> None:
    ids = accept(ledger, *[JOB] * 10)
    ledger.close([Closing(task_id=task_id, state=State.SUCCEEDED) for task_id in ids])

    accept(ledger, *[JOB] * 10)

    assert ledger.open_count() == 10


def test_unsurvived_entries_into_the_decoder_are_counted_until_one_is_survived(
    ledger: Ledger, decode_attempts: DecodeAttempts
) -> None:
    [task_id] = accept(ledger, JOB)

    deaths = [decode_attempts.start(task_id), decode_attempts.start(task_id)]
    decode_attempts.clear([task_id])

    assert [*deaths, decode_attempts.start(task_id)] == [1, 2, 1]


def test_an_entry_into_the_decoder_says_that_the_one_before_was_survived(
    ledger: Ledger, decode_attempts: DecodeAttempts
) -> None:
    first, second = accept(ledger, JOB, JOB)
    decode_attempts.start(first)

    decode_attempts.start(second, decoded=first)

    assert [decode_attempts.start(first), decode_attempts.start(second)] == [1, 2]


def test_a_task_given_back_is_pending_again(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)
    ledger.begin(task_id)

    ledger.give_back(task_id)

    task = ledger.task(task_id)
    assert task is not None
    assert (task.state, task.started, task.attempts) == (State.PENDING, None, 1)


def test_an_unknown_task_is_none(ledger: Ledger) -> None:
    assert ledger.task("nobody") is None
    assert ledger.begin("nobody") is None


def test_a_sent_stamp_never_opens_a_closed_task_again(
    ledger: Ledger, stale_tasks: StaleTasks, fake_redis: Redis
) -> None:
    [task] = ledger.accept([JOB], queue=SINGLE_QUEUE)
    ledger.close([Closing(task_id=task.id, state=State.SUCCEEDED)])

    ours = stale_tasks.touch([Sent(task_id=task.id, queue=SINGLE_QUEUE, at=task.accepted)], at=now_ms(fake_redis))

    assert ours == []
    assert ledger.open_count() == 0


def test_a_message_is_sent_again_by_the_first_to_find_it_gone(
    ledger: Ledger, stale_tasks: StaleTasks, fake_redis: Redis
) -> None:
    [task] = ledger.accept([JOB], queue=SINGLE_QUEUE)
    found = [Sent(task_id=task.id, queue=SINGLE_QUEUE, at=task.accepted)]
    now = now_ms(fake_redis) + 1

    first, second = stale_tasks.touch(found, at=now), stale_tasks.touch(found, at=now)

    assert first == [Sent(task_id=task.id, queue=SINGLE_QUEUE, at=now)]
    assert second == []


def test_failed_work_is_open_again_with_its_old_place(fake_redis: Redis, ledger: Ledger) -> None:
    [task] = ledger.accept([JOB], queue=BATCH_QUEUE)
    fail(ledger, task.id)

    [outcome] = ledger.retry([task.id])

    again = ledger.task(task.id)
    assert isinstance(outcome, Sent)
    assert (outcome.task_id, outcome.queue) == (task.id, BATCH_QUEUE)
    assert again is not None
    assert (again.state, again.seq, again.code, again.finished) == (State.PENDING, task.seq, None, None)
    assert fake_redis.ttl(TASK + task.id) == -1
    assert (ledger.open_count(), fake_redis.zcard(FAILED)) == (1, 0)


def test_a_picture_that_ended_its_workers_has_all_its_chances_again(
    ledger: Ledger, decode_attempts: DecodeAttempts
) -> None:
    [task_id] = accept(ledger, JOB)
    decode_attempts.start(task_id)
    fail(ledger, task_id)

    ledger.retry([task_id])

    assert decode_attempts.start(task_id) == 1


def test_only_failed_work_is_opened_again(ledger: Ledger) -> None:
    pending, running, done, twice = accept(ledger, *[JOB] * 4)
    ledger.begin(running)
    ledger.close([Closing(task_id=done, state=State.SUCCEEDED)])
    fail(ledger, twice)

    outcomes = ledger.retry([pending, running, done, "nobody", twice, twice])

    assert outcomes[:4] == [Refusal.NOT_FAILED] * 3 + [Refusal.UNKNOWN]
    assert isinstance(outcomes[4], Sent)
    assert outcomes[5] is Refusal.NOT_FAILED


def test_what_a_forgotten_deletion_may_outrank_is_not_opened_again(fake_redis: Redis, ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)
    fail(ledger, task_id)
    fake_redis.hset(TASK + task_id, "accepted", now_ms(fake_redis) - 601_000)

    assert ledger.retry([task_id]) == [Refusal.TOO_LATE]


def test_cancelled_work_is_never_begun(ledger: Ledger) -> None:
    [task_id] = accept(ledger, JOB)

    was = [ledger.cancel(task_id), ledger.cancel(task_id)]

    assert was == [State.PENDING, State.CANCELLED]
    assert ledger.begin(task_id) is None
    assert ledger.open_count() == 0


def test_work_that_has_begun_or_ended_is_not_cancelled(ledger: Ledger) -> None:
    running, failed = accept(ledger, JOB, JOB)
    ledger.begin(running)
    fail(ledger, failed)

    was = [ledger.cancel(running), ledger.cancel(failed), ledger.cancel("nobody")]

    assert was == [State.RUNNING, State.FAILED, None]
    assert ledger.open_count() == 1


def test_a_list_of_failures_is_walked_by_cursor_from_the_newest_on(ledger: Ledger, fake_redis: Redis) -> None:
    ids = accept(ledger, *[JOB] * 5)
    for task_id in ids:
        fail(ledger, task_id)

    walked = walk(fake_redis, State.FAILED, limit=2)

    assert sorted(walked) == sorted(ids)
    assert [len(page) for page in pages(fake_redis, State.FAILED, limit=2)] == [2, 2, 1]


def test_the_newest_failure_comes_first(fake_redis: Redis, ledger: Ledger) -> None:
    first, second, third = accept(ledger, *[JOB] * 3)
    for task_id, at in ((second, 30), (third, 20), (first, 10)):
        fail(ledger, task_id)
        fake_redis.zadd(FAILED, {task_id: at})

    assert walk(fake_redis, State.FAILED, limit=1) == [second, third, first]


def test_a_walk_goes_on_where_its_last_task_was_although_it_left(ledger: Ledger, fake_redis: Redis) -> None:
    ids = accept(ledger, *[JOB] * 4)
    for at, task_id in enumerate(ids):
        fail(ledger, task_id)
        fake_redis.zadd(FAILED, {task_id: at})
    first = TaskPages(fake_redis).page(State.FAILED, limit=2)
    ledger.retry([task.id for task in first.tasks])

    second = TaskPages(fake_redis).page(State.FAILED, limit=2, cursor=first.cursor)

    assert [task.id for task in second.tasks] == [ids[1], ids[0]]


def test_failures_are_kept_to_a_code_and_a_start_of_the_filepath(ledger: Ledger, fake_redis: Redis) -> None:
    paths = ["cats/1", "cats/2", "dogs/1"]
    ids = accept(ledger, *[AddJob(filepath=path, url="http://example.org/a") for path in paths])
    for task_id, code in zip(ids, ["timeout", "not_an_image", "timeout"], strict=True):
        fail(ledger, task_id, code=code)

    assert set(walk(fake_redis, State.FAILED, code="timeout")) == {ids[0], ids[2]}
    assert set(walk(fake_redis, State.FAILED, prefix="cats/")) == {ids[0], ids[1]}
    assert walk(fake_redis, State.FAILED, code="timeout", prefix="cats/") == [ids[0]]


def test_a_filter_that_fits_nothing_costs_no_more_than_a_page(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, fake_redis: Redis
) -> None:
    monkeypatch.setattr("common.queue.task_pages.MAX_SCANNED", 2)
    for task_id in accept(ledger, *[JOB] * 5):
        fail(ledger, task_id)

    found = pages(fake_redis, State.FAILED, limit=10, code="other")

    assert found == [[], [], []]


def test_waiting_and_running_work_are_listed_apart(ledger: Ledger, fake_redis: Redis) -> None:
    waiting, running, returned = accept(ledger, *[JOB] * 3)
    ledger.begin(running)
    ledger.begin(returned)
    ledger.give_back(returned)

    assert set(walk(fake_redis, State.PENDING)) == {waiting, returned}
    assert walk(fake_redis, State.RUNNING) == [running]


def test_a_cursor_of_nobody_is_an_input_error(fake_redis: Redis) -> None:
    with pytest.raises(InputError):
        TaskPages(fake_redis).page(State.FAILED, limit=1, cursor="x")


def test_uploads_are_told_of_work_that_may_need_them_alone(ledger: Ledger) -> None:
    with_upload, done, without = accept(
        ledger, AddJob(filepath="a", upload="one"), AddJob(filepath="b", upload="two"), JOB
    )
    ledger.close([Closing(task_id=done, state=State.SUCCEEDED)])

    assert ledger.uploads_of([with_upload, done, without, "nobody"]) == {with_upload: "one"}


def pages(redis: Redis, state: State, **options: Any) -> list[list[str]]:
    found, cursor = [], ""
    while cursor is not None:
        page = TaskPages(redis).page(state, cursor=cursor or None, **{"limit": 100, **options})
        found.append([task.id for task in page.tasks])
        cursor = page.cursor
    return found


def walk(redis: Redis, state: State, **options: Any) -> list[str]:
    return [task_id for page in pages(redis, state, **options) for task_id in page]


def test_a_redis_that_is_not_there_is_unavailable() -> None:
    nowhere = Ledger(connect("redis://127.0.0.1:1/0"), max_open=1, finished_keep_s=60, failed_keep_s=60)

    with pytest.raises(QueueUnavailable):
        nowhere.open_count()


def test_a_lease_from_before_the_clock_was_set_back_holds_nobody_up(leases: Leases) -> None:
    leases.acquire("sweep", for_s=3600)

    assert leases.acquire("sweep", for_s=60)


def test_a_lease_is_given_once(leases: Leases) -> None:
    assert [leases.acquire("sweep", for_s=60), leases.acquire("sweep", for_s=60)] == [True, False]
