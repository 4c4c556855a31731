"""The writer: many tasks, one write, and each task its own outcome."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event
from typing import Any

import numpy as np
import pytest
from redis import Redis

from common.errors import QueueUnavailable, StoreError, StoreUnavailable
from common.queue.jobs import SINGLE_QUEUE, AddJob
from common.queue.ledger import Ledger
from common.queue.tasks import Claim, State
from common.store.base import Record, Verdict, Written
from common.uploads import Uploads
from workers.settlement import End, Settlement
from workers.writer import Writer

Write = Callable[..., Future[State]]


@pytest.fixture
def settlement(ledger: Ledger, uploads: Uploads) -> Settlement:
    return Settlement(ledger, uploads, failed_keep_s=600)


@pytest.fixture
def start(memory_store: Any, settlement: Settlement) -> Iterator[Callable[..., Writer]]:
    writers: list[Writer] = []

    def start(**options: Any) -> Writer:
        writers.append(Writer(memory_store, settlement, **{"most": 10, "linger_s": 0.05, "hold_s": 30.0} | options))
        return writers[-1]

    yield start
    for writer in writers:
        writer.close()


def record(claim: Claim) -> Record:
    return Record(
        filepath=claim.job.filepath,
        seq=claim.seq,
        signatures=(np.ones(272, np.int8),),
        added=0,
        width=1,
        height=1,
    )


@pytest.fixture
def claims(ledger: Ledger) -> list[Claim]:
    jobs = [AddJob(filepath=f"{number}.jpg", url="http://example.org") for number in range(8)]
    tasks = ledger.accept(jobs, queue=SINGLE_QUEUE)
    found = [ledger.begin(task.id) for task in tasks]
    return [claim for claim in found if claim is not None]


def write_all(writer: Writer, claims: list[Claim]) -> list[Future[State]]:
    with ThreadPoolExecutor(len(claims)) as pool:
        return [pool.submit(writer.write, claim, record(claim)) for claim in claims]


def state(ledger: Ledger, claim: Claim) -> State:
    task = ledger.task(claim.task_id)
    assert task is not None
    return task.state


def test_tasks_that_arrive_together_share_a_write(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim]
) -> None:
    writer = start(linger_s=2.0, most=len(claims))

    states = [outcome.result() for outcome in write_all(writer, claims)]

    assert states == [State.SUCCEEDED] * len(claims)
    assert [len(write) for write in memory_store.writes] == [len(claims)]


def test_a_task_returns_only_when_the_ledger_says_so_too(
    start: Callable[..., Writer], ledger: Ledger, claims: list[Claim]
) -> None:
    start().write(claims[0], record(claims[0]))

    assert state(ledger, claims[0]) is State.SUCCEEDED


def test_one_refused_record_never_costs_the_others(
    start: Callable[..., Writer], memory_store: Any, ledger: Ledger, claims: list[Claim]
) -> None:
    memory_store.refused = {claims[1].job.filepath: "immense term"}

    states = [outcome.result() for outcome in write_all(start(), claims[:3])]

    assert states == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]
    failed = ledger.task(claims[1].task_id)
    assert failed is not None
    assert (failed.code, failed.error) == ("store_error", "immense term")


def test_a_write_that_breaks_as_a_whole_is_tried_one_by_one(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = memory_store.put

    def break_groups(items: list[Record]) -> list[Written]:
        if len(items) > 1 or items[0].filepath == "1.jpg":
            raise StoreError("malformed bulk")
        outcome: list[Written] = put(items)
        return outcome

    monkeypatch.setattr(memory_store, "put", break_groups)

    states = [outcome.result() for outcome in write_all(start(), claims[:3])]

    assert states == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]


def test_an_older_request_is_superseded(start: Callable[..., Writer], ledger: Ledger) -> None:
    job = AddJob(filepath="same.jpg", url="http://example.org")
    older, newer = (ledger.begin(task.id) for task in ledger.accept([job, job], queue=SINGLE_QUEUE))
    assert older is not None
    assert newer is not None
    writer = start()

    states = [writer.write(newer, record(newer)), writer.write(older, record(older))]

    assert states == [State.SUCCEEDED, State.SUPERSEDED]
    assert state(ledger, older) is State.SUPERSEDED


def test_records_wait_for_a_store_that_is_away(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim]
) -> None:
    memory_store.away = True
    writer = start()
    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(writer.write, claim, record(claim)) for claim in claims[:2]]
        done_while_away = wait(outcomes, timeout=0.3).done

        memory_store.away = False

    assert not done_while_away
    assert [outcome.result() for outcome in outcomes] == [State.SUCCEEDED, State.SUCCEEDED]


def test_a_held_record_is_written_again(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([[Written(Verdict.RETRY, "429")], [Written(Verdict.STORED)]])
    monkeypatch.setattr(memory_store, "put", lambda _: next(answers))

    assert start().write(claims[0], record(claims[0])) is State.SUCCEEDED


class Pauses(Event):
    """An event for which nobody waits; it keeps how long they would have."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout)
        return self.is_set()


def test_a_store_that_takes_nothing_is_asked_less_and_less_often(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.writer.Event", Pauses)
    answers = iter([[Written(Verdict.RETRY, "429")]] * 7 + [[Written(Verdict.STORED)]])
    monkeypatch.setattr(memory_store, "put", lambda _: next(answers))
    writer = start()

    writer.write(claims[0], record(claims[0]))

    assert writer._hurry.asked == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]  # type: ignore[attr-defined]


def test_a_store_that_takes_some_of_it_is_not_kept_waiting(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.writer.Event", Pauses)
    some = iter([Written(Verdict.STORED)] * 7)
    monkeypatch.setattr(
        memory_store, "put", lambda items: [next(some), *[Written(Verdict.RETRY, "429")] * (len(items) - 1)]
    )
    writer = start(linger_s=0.3, most=7)

    outcomes = write_all(writer, claims[:7])

    assert [outcome.result() for outcome in outcomes] == [State.SUCCEEDED] * 7
    assert set(writer._hurry.asked) == {0.2}  # type: ignore[attr-defined]


def test_a_record_gives_up_on_a_store_that_stays_away_and_its_task_stays_open(
    start: Callable[..., Writer], memory_store: Any, ledger: Ledger, claims: list[Claim]
) -> None:
    memory_store.away = True

    with pytest.raises(StoreUnavailable):
        start(hold_s=0.0).write(claims[0], record(claims[0]))

    assert state(ledger, claims[0]) is State.RUNNING


def test_a_process_that_ends_holds_nothing(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim]
) -> None:
    memory_store.away = True
    writer = start()
    writer.hurry()

    with pytest.raises(StoreUnavailable):
        writer.write(claims[0], record(claims[0]))


def test_a_record_that_the_ledger_does_not_confirm_is_no_success(
    start: Callable[..., Writer], settlement: Settlement, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unconfirmed(_ends: list[End]) -> None:
        raise QueueUnavailable("Redis does not answer")

    monkeypatch.setattr(settlement, "settle", unconfirmed, raising=True)

    with pytest.raises(QueueUnavailable):
        start().write(claims[0], record(claims[0]))


def test_a_fault_in_a_write_reaches_its_tasks_and_the_writer_lives_on(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = start()
    with monkeypatch.context() as broken:
        broken.setattr(memory_store, "put", lambda _: [])
        with pytest.raises(ValueError, match="shorter"):
            writer.write(claims[0], record(claims[0]))

    assert writer.write(claims[1], record(claims[1])) is State.SUCCEEDED


def test_an_upload_goes_with_its_success_and_stays_for_a_while_with_its_failure(
    fake_redis: Redis, ledger: Ledger, uploads: Uploads, settlement: Settlement
) -> None:
    kept = [uploads.put(b"a"), uploads.put(b"b")]
    for upload in kept:
        uploads.keep(upload)
    tasks = ledger.accept([AddJob(filepath=upload, upload=upload) for upload in kept], queue=SINGLE_QUEUE)
    stored, failed = (claim for task in tasks if (claim := ledger.begin(task.id)))

    settlement.settle([End(stored, State.SUCCEEDED), End(failed, State.FAILED, code="x", error="y")])

    assert [uploads.get(upload) for upload in kept] == [None, b"b"]
    assert 0 < int(fake_redis.ttl(f"match:upload:{kept[1]}")) <= 600
