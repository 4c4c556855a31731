"""The ledger: accepted work is never forgotten while it is open, and the order of requests is kept."""

import pytest
from redis import Redis

from common.errors import Overloaded, QueueUnavailable
from common.jobs import SINGLE_QUEUE, AddJob
from common.ledger import FAILED, SEQ, TASK, Closing, Ledger, Sent, State
from common.redis_client import connect

JOB = AddJob(filepath="dir/ä cat.jpg", url="http://example.org/cat.jpg", metadata={"kind": ["cat", 1]})


def accept(ledger: Ledger, *jobs: AddJob) -> list[str]:
    return [task.id for task in ledger.accept(jobs or [JOB], queue=SINGLE_QUEUE)]


def test_an_accepted_job_comes_back_as_it_was(ledger: Ledger) -> None:
    [task_id] = accept(ledger)

    claim = ledger.begin(task_id)

    assert claim is not None
    assert claim.job == JOB


def test_each_request_has_a_later_place_than_the_one_before(ledger: Ledger) -> None:
    accepted = ledger.accept([JOB, JOB, JOB], queue=SINGLE_QUEUE)

    seqs = [task.seq for task in accepted] + [ledger.take_seq(), ledger.take_seq()]

    assert seqs == sorted(set(seqs))


def test_places_go_on_rising_when_redis_has_lost_everything(fake_redis: Redis, ledger: Ledger) -> None:
    before = ledger.take_seq()
    fake_redis.flushall()

    after = ledger.take_seq()

    assert after > before


def test_places_go_on_rising_when_the_clock_is_set_back(fake_redis: Redis, ledger: Ledger) -> None:
    in_an_hour = ledger.take_seq() + 3_600_000_000
    fake_redis.set(SEQ, in_an_hour)

    after = ledger.take_seq()

    assert after == in_an_hour + 1


def test_work_runs_once_begun_and_counts_its_beginnings(ledger: Ledger) -> None:
    [task_id] = accept(ledger)

    ledger.begin(task_id)
    ledger.begin(task_id)

    task = ledger.task(task_id)
    assert task is not None
    assert (task.state, task.attempts) == (State.RUNNING, 2)
    assert task.started is not None
    assert task.finished is None


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.SUPERSEDED, State.FAILED, State.CANCELLED])
def test_closed_work_is_never_begun_again(ledger: Ledger, state: State) -> None:
    [task_id] = accept(ledger)
    ledger.close([Closing(task_id=task_id, state=state, code="gone", error="it is gone")])

    assert ledger.begin(task_id) is None


def test_the_first_end_of_a_task_stands(ledger: Ledger) -> None:
    [task_id] = accept(ledger)
    ledger.close([Closing(task_id=task_id, state=State.CANCELLED)])

    ledger.close([Closing(task_id=task_id, state=State.SUCCEEDED)])

    task = ledger.task(task_id)
    assert task is not None
    assert task.state is State.CANCELLED


def test_what_another_delivery_stored_has_not_failed(fake_redis: Redis, ledger: Ledger) -> None:
    [task_id] = accept(ledger)
    ledger.close([Closing(task_id=task_id, state=State.FAILED, code="http_status", error="404")])

    ledger.close([Closing(task_id=task_id, state=State.SUCCEEDED)])

    task = ledger.task(task_id)
    assert task is not None
    assert (task.state, task.code, task.error) == (State.SUCCEEDED, None, None)
    assert fake_redis.zcard(FAILED) == 0


def test_a_failure_keeps_its_reason(ledger: Ledger) -> None:
    [task_id] = accept(ledger)

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


def test_unsurvived_entries_into_the_decoder_are_counted_until_one_is_survived(ledger: Ledger) -> None:
    [task_id] = accept(ledger)

    deaths = [ledger.risk(task_id), ledger.risk(task_id)]
    ledger.survived([task_id])

    assert [*deaths, ledger.risk(task_id)] == [1, 2, 1]


def test_a_task_given_back_is_pending_again(ledger: Ledger) -> None:
    [task_id] = accept(ledger)
    ledger.begin(task_id)

    ledger.give_back(task_id)

    task = ledger.task(task_id)
    assert task is not None
    assert task.state is State.PENDING


def test_an_unknown_task_is_none(ledger: Ledger) -> None:
    assert ledger.task("nobody") is None
    assert ledger.begin("nobody") is None


def test_a_sent_stamp_never_opens_a_closed_task_again(ledger: Ledger) -> None:
    [task] = ledger.accept([JOB], queue=SINGLE_QUEUE)
    ledger.close([Closing(task_id=task.id, state=State.SUCCEEDED)])

    ours = ledger.restamp([Sent(task_id=task.id, queue=SINGLE_QUEUE, at=task.accepted)], at=ledger.now_ms())

    assert ours == []
    assert ledger.open_count() == 0


def test_a_redis_that_is_not_there_is_unavailable() -> None:
    nowhere = Ledger(connect("redis://127.0.0.1:1/0"), max_open=1, finished_keep_s=60, failed_keep_s=60)

    with pytest.raises(QueueUnavailable):
        nowhere.take_seq()


def test_a_lease_is_given_once(ledger: Ledger) -> None:
    assert [ledger.lease("sweep", for_s=60), ledger.lease("sweep", for_s=60)] == [True, False]
