"""The writer: many tasks in one write, each with its own result."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from redis import Redis

from common.errors import QueueUnavailable, StoreError, StoreUnavailable
from common.queue.items import AddItem
from common.queue.keys import UPLOAD
from common.queue.ledger import Ledger
from common.queue.tasks import Claim, State, TaskResult
from common.store.base import Record, Verdict, Written
from common.uploads import Uploads
from support import records
from support.records import FEATURELESS
from support.tasks import begin, enqueue, task_of
from support.thumbnails import MemoryThumbnails
from workers.finishing import TaskFinisher
from workers.writer import Writer

Write = Callable[..., Future[TaskResult]]


@pytest.fixture
def finisher(ledger: Ledger, uploads: Uploads) -> TaskFinisher:
    return TaskFinisher(ledger, uploads, failed_keep_s=600)


@pytest.fixture
def start(memory_store: Any, finisher: TaskFinisher) -> Iterator[Callable[..., Writer]]:
    writers: list[Writer] = []

    def start(**options: Any) -> Writer:
        options = {"max_records": 10, "linger_s": 0.05, "hold_s": 30.0} | options
        writers.append(Writer(memory_store, finisher, **options))
        return writers[-1]

    yield start
    for writer in writers:
        writer.close()


def record(claim: Claim) -> Record:
    return records.record(claim.filepath, claim.seq)


@pytest.fixture
def claims(ledger: Ledger) -> list[Claim]:
    jobs = [AddItem(filepath=f"{number}.jpg", url="http://example.org") for number in range(8)]
    return [begin(ledger, task.id) for task in enqueue(ledger, jobs)]


def write_all(writer: Writer, claims: list[Claim]) -> list[Future[TaskResult]]:
    with ThreadPoolExecutor(len(claims)) as pool:
        return [pool.submit(writer.write, claim, record(claim)) for claim in claims]


def test_tasks_that_arrive_together_share_a_write(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim]
) -> None:
    writer = start(linger_s=2.0, max_records=len(claims))

    states = [outcome.result().state for outcome in write_all(writer, claims)]

    assert states == [State.SUCCEEDED] * len(claims)
    assert [len(write) for write in memory_store.writes] == [len(claims)]


def test_a_write_returns_after_the_ledger_has_confirmed(
    start: Callable[..., Writer], ledger: Ledger, claims: list[Claim]
) -> None:
    start().write(claims[0], record(claims[0]))

    assert task_of(ledger, claims[0].task_id).state is State.SUCCEEDED


def test_a_rejected_record_does_not_fail_the_others(
    start: Callable[..., Writer], memory_store: Any, ledger: Ledger, claims: list[Claim]
) -> None:
    memory_store.refused = {claims[1].filepath: "immense term"}

    states = [outcome.result().state for outcome in write_all(start(), claims[:3])]

    assert states == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]
    failed = task_of(ledger, claims[1].task_id)
    assert (failed.code, failed.error) == ("store_error", "immense term")


def test_a_failed_bulk_is_written_record_by_record(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = memory_store.put

    def break_groups(items: list[Record]) -> list[Written]:
        if len(items) > 1 or items[0].filepath == "1.jpg":
            raise StoreError("malformed bulk")
        outcome: list[Written] = put(items)
        return outcome

    monkeypatch.setattr(memory_store, "put", break_groups)

    states = [outcome.result().state for outcome in write_all(start(), claims[:3])]

    assert states == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]


def test_an_older_request_is_superseded(start: Callable[..., Writer], ledger: Ledger) -> None:
    job = AddItem(filepath="same.jpg", url="http://example.org")
    older, newer = (begin(ledger, task.id) for task in enqueue(ledger, [job, job]))
    writer = start()

    states = [writer.write(newer, record(newer)).state, writer.write(older, record(older)).state]

    assert states == [State.SUCCEEDED, State.SUPERSEDED]
    assert task_of(ledger, older.task_id).state is State.SUPERSEDED


def test_a_stored_image_without_features_has_a_warning(
    start: Callable[..., Writer], ledger: Ledger, claims: list[Claim]
) -> None:
    plain, photo = claims[:2]
    writer = start()

    results = [
        writer.write(plain, replace(record(plain), signatures=(FEATURELESS,))),
        writer.write(photo, record(photo)),
    ]

    assert [(result.state, result.warning) for result in results] == [
        (State.SUCCEEDED, "featureless"),
        (State.SUCCEEDED, ""),
    ]
    assert [task_of(ledger, claim.task_id).warning for claim in (plain, photo)] == ["featureless", None]


def test_an_image_that_is_not_stored_has_no_warning(start: Callable[..., Writer], ledger: Ledger) -> None:
    job = AddItem(filepath="same.jpg", url="http://example.org")
    older, newer = (begin(ledger, task.id) for task in enqueue(ledger, [job, job]))
    writer = start()
    writer.write(newer, record(newer))

    result = writer.write(older, replace(record(older), signatures=(FEATURELESS,)))

    assert (result.state, result.warning) == (State.SUPERSEDED, "")


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
    assert [outcome.result().state for outcome in outcomes] == [State.SUCCEEDED, State.SUCCEEDED]


def test_a_retryable_write_is_repeated(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([[Written(Verdict.RETRY, "429")], [Written(Verdict.STORED)]])
    monkeypatch.setattr(memory_store, "put", lambda _: next(answers))

    assert start().write(claims[0], record(claims[0])).state is State.SUCCEEDED


class Pauses(Event):
    """An event whose `wait` returns at once and records the time-out."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return self.is_set()


def test_pauses_grow_while_the_store_accepts_nothing(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.writer.Event", Pauses)
    answers = iter([[Written(Verdict.RETRY, "429")]] * 7 + [[Written(Verdict.STORED)]])
    monkeypatch.setattr(memory_store, "put", lambda _: next(answers))
    writer = start()

    writer.write(claims[0], record(claims[0]))

    assert writer._stopping.waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]  # type: ignore[attr-defined]


def test_pauses_stay_short_while_the_store_accepts_some(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.writer.Event", Pauses)
    some = iter([Written(Verdict.STORED)] * 7)
    monkeypatch.setattr(
        memory_store, "put", lambda items: [next(some), *[Written(Verdict.RETRY, "429")] * (len(items) - 1)]
    )
    writer = start(linger_s=0.3, max_records=7)

    outcomes = write_all(writer, claims[:7])

    assert [outcome.result().state for outcome in outcomes] == [State.SUCCEEDED] * 7
    assert set(writer._stopping.waits) == {0.2}  # type: ignore[attr-defined]


def test_a_task_stays_open_while_the_store_is_unavailable(
    start: Callable[..., Writer], memory_store: Any, ledger: Ledger, claims: list[Claim]
) -> None:
    memory_store.away = True

    with pytest.raises(StoreUnavailable):
        start(hold_s=0.0).write(claims[0], record(claims[0]))

    assert task_of(ledger, claims[0].task_id).state is State.RUNNING


def test_a_stopping_process_does_not_wait_for_the_store(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim]
) -> None:
    memory_store.away = True
    writer = start()
    writer.begin_shutdown()

    with pytest.raises(StoreUnavailable):
        writer.write(claims[0], record(claims[0]))


def test_an_unconfirmed_record_is_not_a_success(
    start: Callable[..., Writer], finisher: TaskFinisher, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unconfirmed(_results: list[TaskResult]) -> None:
        raise QueueUnavailable("Redis does not answer")

    monkeypatch.setattr(finisher, "finish", unconfirmed, raising=True)

    with pytest.raises(QueueUnavailable):
        start().write(claims[0], record(claims[0]))


def test_the_writer_continues_after_an_unexpected_error(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = start()
    with monkeypatch.context() as broken:
        broken.setattr(memory_store, "put", lambda _: [])
        with pytest.raises(ValueError, match="shorter"):
            writer.write(claims[0], record(claims[0]))

    assert writer.write(claims[1], record(claims[1])).state is State.SUCCEEDED


def test_failed_tasks_keep_their_uploads_for_a_while(
    fake_redis: Redis, ledger: Ledger, uploads: Uploads, finisher: TaskFinisher
) -> None:
    kept = [uploads.put(b"a"), uploads.put(b"b")]
    for upload in kept:
        uploads.keep(upload)
    tasks = enqueue(ledger, [AddItem(filepath=upload, upload_id=upload) for upload in kept])
    stored, failed = (begin(ledger, task.id) for task in tasks)

    finisher.finish([stored.result(State.SUCCEEDED), failed.result(State.FAILED, code="x", error="y")])

    assert [uploads.get(upload) for upload in kept] == [None, b"b"]
    assert 0 < int(fake_redis.ttl(UPLOAD + kept[1])) <= 600


def test_thumbnails_of_stored_records_are_kept(start: Callable[..., Writer], claims: list[Claim]) -> None:
    thumbnails = MemoryThumbnails()
    writer = start(thumbnails=thumbnails)

    writer.write(claims[0], record(claims[0]), b"webp")
    writer.write(claims[1], record(claims[1]))

    assert [(each.owner.filepath, each.webp) for each in thumbnails.kept.values()] == [("0.jpg", b"webp")]


def test_task_succeeds_without_its_thumbnail(start: Callable[..., Writer], claims: list[Claim]) -> None:
    thumbnails = MemoryThumbnails()
    thumbnails.away = True

    result = start(thumbnails=thumbnails).write(claims[0], record(claims[0]), b"webp")

    assert result.state is State.SUCCEEDED


def test_a_replacement_is_superseded_by_any_other_request(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim]
) -> None:
    kept, changed, deleted, repeated = (replace(claim, replaces=number) for number, claim in enumerate(claims[:4], 1))
    memory_store.put([records.record(kept.filepath, 1), records.record(changed.filepath, 9), record(repeated)])

    states = [outcome.result().state for outcome in write_all(start(), [kept, changed, deleted, repeated])]

    assert states == [State.SUCCEEDED, State.SUPERSEDED, State.SUPERSEDED, State.SUCCEEDED]
    assert deleted.filepath not in memory_store.records([deleted.filepath])


def test_a_replacement_keeps_patches_of_the_metadata(
    start: Callable[..., Writer], memory_store: Any, claims: list[Claim]
) -> None:
    claim = replace(claims[0], replaces=1)
    old = records.record(claim.filepath, 1, metadata={"a": 1})
    memory_store.put([old, records.patch(claim.filepath, 2, {"a": 2})])
    stale = replace(record(claim), metadata={"a": 1})

    states = [start().write(claim, stale).state]
    first = memory_store.records([claim.filepath])[claim.filepath]
    # A patch that was accepted before the replacement, and one after it.
    for seq in (3, claim.seq + 1):
        memory_store.put([records.patch(claim.filepath, seq, {f"{seq}": seq})])
    states.append(start().write(claim, stale).state)

    assert states == [State.SUCCEEDED, State.SUCCEEDED]
    assert (first.seq, first.metadata) == (claim.seq, {"a": 2})
    last = memory_store.records([claim.filepath])[claim.filepath].metadata
    assert last == {"a": 2, "3": 3, f"{claim.seq + 1}": claim.seq + 1}
