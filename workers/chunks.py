"""Messages of many tasks: their tasks run concurrently, each with its own result."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event, Lock
from time import monotonic

from common.errors import QueueError, StoreUnavailable
from common.queue.jobs import BATCH_QUEUE

log = logging.getLogger(__name__)

# Messages that a process holds at once. Few, so that those in the queue are left to all workers, and so that single
# adds, which share the cores, stay quick. Two keep the threads busy, two more cover a slow last task.
MAX_CONCURRENT = 4
# How often a waiting thread checks whether the process is shutting down.
_POLL_S = 0.5
# Before tasks are enqueued again that a store or queue could not take: they must not spin.
PAUSE_S = 1.0


class Chunks:
    """Runs the tasks of a message in threads that all messages of the process share.

    `work` runs one task, and raises StoreUnavailable or QueueError when it cannot be finished now. `send` gets task
    ids, a queue, and when their message was enqueued (ms since 1970). Tasks that have not begun after `patience_s` are
    enqueued again.
    """

    def __init__(
        self,
        work: Callable[[str], None],
        send: Callable[[Sequence[str], str, int], None],
        *,
        threads: int,
        patience_s: float,
    ) -> None:
        self._work = work
        self._send = send
        self._patience_s = patience_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="chunk")
        self._hurry = Event()
        self._lock = Lock()
        self._running = 0

    def is_full(self) -> bool:
        """Return whether this process holds as many of these messages as it may."""
        return self._running >= MAX_CONCURRENT

    def run(self, task_ids: Sequence[str], *, at: int) -> None:
        """Return when each task has ended, or was enqueued again in a message of its own.

        Raises what `send` raises: then the whole message has to be repeated; tasks that ended are not run twice.
        """
        with self._counted():
            futures = [self._threads.submit(self._work, task_id) for task_id in task_ids]
            self._wait(futures)
            # First, so that no other thread begins one of them while the next line waits for running ones.
            unbegun = [future.cancel() for future in futures]
            left = [
                task_id
                for task_id, future, cancelled in zip(task_ids, futures, unbegun, strict=True)
                if cancelled or not _is_finished(future)
            ]
            if left:
                self._give_back(left, at, pause=not all(unbegun))

    def hurry(self) -> None:
        """Begin no more tasks: the process is shutting down."""
        self._hurry.set()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _wait(self, futures: Sequence[Future[None]]) -> None:
        deadline = monotonic() + self._patience_s
        running = set(futures)
        while running and not self._hurry.is_set() and (left_s := deadline - monotonic()) > 0:
            _, running = wait(running, timeout=min(_POLL_S, left_s))

    def _give_back(self, task_ids: Sequence[str], at: int, *, pause: bool) -> None:
        log.warning("%d tasks of a message are enqueued again", len(task_ids))
        if pause:
            self._hurry.wait(PAUSE_S)
        self._send(task_ids, BATCH_QUEUE, at)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1


def _is_finished(future: Future[None]) -> bool:
    """Wait for the task, whose own limits bound it, and return whether it needs no other run."""
    try:
        future.result()
    except (StoreUnavailable, QueueError):
        return False
    except Exception:
        # As with a single task: it stays open, and the sweeper enqueues it again.
        log.exception("unexpected error in a task")
    return True
