"""Messages of many tasks: each task has its own result, and no task blocks the message for ever."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Thread
from typing import Any

import pytest

from common.errors import QueueUnavailable, StoreUnavailable
from common.queue.jobs import BATCH_QUEUE, BATCH_QUEUES, CONSUMED_QUEUES, SINGLE_QUEUE, front_queue
from support.waiting import wait_until
from workers.chunks import MAX_CONCURRENT, Chunks
from workers.queue_order import QueueOrder

WITHIN_S = 10.0


class Work:
    """Records the tasks that were run; those in `errors` raise, and those in `waits` wait for `go`."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.begun: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.waits: set[str] = set()
        self.go = Event()

    def __call__(self, task_id: str) -> None:
        self.begun.append(task_id)
        if task_id in self.waits:
            assert self.go.wait(WITHIN_S)
        if task_id in self.errors:
            raise self.errors[task_id]
        self.done.append(task_id)


class Threads(ThreadPoolExecutor):
    """Records the submitted calls."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.submitted: list[Future[Any]] = []

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted.append(super().submit(*args, **kwargs))
        return self.submitted[-1]

    def await_cancelled(self, count: int) -> None:
        wait_until(
            lambda: sum(future.cancelled() for future in self.submitted) >= count, f"{count} calls are cancelled"
        )


class Queue:
    """Records the sent messages."""

    def __init__(self) -> None:
        self.sent: list[tuple[list[str], str, int]] = []

    def __call__(self, task_ids: Sequence[str], queue: str, at: int) -> None:
        self.sent.append((list(task_ids), queue, at))


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def chunks_of(work: Work, queue: Queue) -> Iterator[Callable[..., Chunks]]:
    made: list[Chunks] = []

    def chunks_of(*, threads: int = 4, begin_within_s: float = WITHIN_S) -> Chunks:
        made.append(Chunks(work, queue, threads=threads, begin_within_s=begin_within_s))
        return made[-1]

    yield chunks_of
    work.go.set()
    for chunks in made:
        chunks.close()


def test_every_task_of_a_message_is_worked(chunks_of: Callable[..., Chunks], work: Work, queue: Queue) -> None:
    tasks = [f"task-{n}" for n in range(20)]

    chunks_of().run(tasks, queue=BATCH_QUEUE, at=7)

    assert sorted(work.done) == sorted(tasks)
    assert queue.sent == []


@pytest.mark.parametrize("error", [StoreUnavailable("away"), QueueUnavailable("away")])
def test_only_unfinished_tasks_are_requeued(
    chunks_of: Callable[..., Chunks], work: Work, queue: Queue, error: Exception
) -> None:
    chunks = chunks_of()
    chunks.begin_shutdown()  # without a pause
    work.errors = {"b": error}

    chunks.run(["b"], queue=BATCH_QUEUE, at=7)

    assert queue.sent == [(["b"], BATCH_QUEUE, 7)]


def test_an_error_in_one_task_does_not_affect_others(
    chunks_of: Callable[..., Chunks], work: Work, queue: Queue
) -> None:
    work.errors = {"b": ValueError("internal error")}

    chunks_of().run(["a", "b", "c"], queue=BATCH_QUEUE, at=7)

    assert sorted(work.done) == ["a", "c"]
    assert queue.sent == []


def test_tasks_not_begun_in_time_are_requeued(chunks_of: Callable[..., Chunks], work: Work, queue: Queue) -> None:
    work.waits = {"slow"}
    chunks = chunks_of(threads=1, begin_within_s=0.01)
    chunks._threads = threads = Threads(1)
    running = Thread(target=chunks.run, args=(["slow", "b", "c"],), kwargs={"queue": BATCH_QUEUE, "at": 7})

    running.start()
    threads.await_cancelled(2)
    work.go.set()
    running.join(WITHIN_S)

    assert work.done == ["slow"]
    assert queue.sent == [(["b", "c"], BATCH_QUEUE, 7)]


def test_a_stopping_process_begins_no_more_tasks(chunks_of: Callable[..., Chunks], work: Work, queue: Queue) -> None:
    work.waits = {"slow"}
    chunks = chunks_of(threads=1)
    chunks._threads = threads = Threads(1)
    running = Thread(target=chunks.run, args=(["slow", "b", "c"],), kwargs={"queue": BATCH_QUEUE, "at": 7})

    running.start()
    chunks.begin_shutdown()
    threads.await_cancelled(2)
    work.go.set()
    running.join(WITHIN_S)

    assert "b" not in work.begun
    assert [sent[1:] for sent in queue.sent] == [(BATCH_QUEUE, 7)]
    assert {"b", "c"} <= set(queue.sent[0][0])


def test_a_failed_requeue_raises_to_the_caller(work: Work) -> None:
    def refuse(*_: object) -> None:
        raise QueueUnavailable("away")

    chunks = Chunks(work, refuse, threads=1, begin_within_s=WITHIN_S)
    chunks.begin_shutdown()
    work.errors = {"a": StoreUnavailable("away")}

    with pytest.raises(QueueUnavailable):
        chunks.run(["a"], queue=BATCH_QUEUE, at=7)
    chunks.close()


def test_a_full_process_consumes_only_single_adds(chunks_of: Callable[..., Chunks], work: Work) -> None:
    chunks = chunks_of(threads=MAX_CONCURRENT)
    order = QueueOrder(chunks.is_full, lambda: False)
    order.update([SINGLE_QUEUE, BATCH_QUEUE])
    work.waits = {f"task-{n}" for n in range(MAX_CONCURRENT)}
    running = [
        Thread(target=chunks.run, args=([task],), kwargs={"queue": BATCH_QUEUE, "at": 7}) for task in sorted(work.waits)
    ]

    before = order.consume(2)
    for thread in running:
        thread.start()
    while len(work.begun) < MAX_CONCURRENT:
        running[0].join(0.01)
    while_full = order.consume(2)
    work.go.set()
    for thread in running:
        thread.join(WITHIN_S)

    assert before == order.consume(2) == [SINGLE_QUEUE, BATCH_QUEUE]
    assert while_full == [SINGLE_QUEUE]


def test_batch_queues_take_turns_after_single_adds() -> None:
    order = QueueOrder(lambda: False, lambda: False)
    order.update(CONSUMED_QUEUES)
    first, second, third, *_ = BATCH_QUEUES

    order.rotate(first)
    order.rotate(SINGLE_QUEUE)
    order.rotate(third)
    consumed = order.consume(len(CONSUMED_QUEUES))

    assert consumed[:2] == [front_queue(SINGLE_QUEUE), SINGLE_QUEUE]
    assert consumed[2:-8] == [front_queue(queue) for queue in BATCH_QUEUES]
    assert consumed[-8] == second
    assert consumed[-2:] == [first, third]
