"""Messages of many tasks: their tasks run concurrently, each with its own result."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event, Lock
from time import monotonic

from common.errors import QueueError, StoreUnavailable

log = logging.getLogger(__name__)

# Messages that a process runs at once. Two keep the threads busy, and two more cover a slow last task. More would take
# messages from other workers, and CPU from single adds.
MAX_CONCURRENT = 4
# Seconds between two checks of a waiting thread for a shutdown.
_POLL_S = 0.5
# Pause before tasks are enqueued again because the store or the queue is unavailable; without it they would spin.
PAUSE_S = 1.0


class Chunks:
    """Runs the tasks of each message in threads that all messages of the process share.

    `work` runs one task, and raises StoreUnavailable or QueueError when it cannot be finished now. `send` enqueues
    task ids to a queue with a time of enqueueing (ms since 1970). Tasks that have not begun after `begin_within_s` are
    enqueued again.
    """

    def __init__(
        self,
        work: Callable[[str], None],
        send: Callable[[Sequence[str], str, int], None],
        *,
        threads: int,
        begin_within_s: float,
    ) -> None:
        self._work = work
        self._send = send
        self._begin_within_s = begin_within_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="chunk")
        self._stopping = Event()
        self._lock = Lock()
        self._running = 0

    def is_full(self) -> bool:
        """Return whether this process runs MAX_CONCURRENT messages."""
        return self._running >= MAX_CONCURRENT

    def run(self, task_ids: Sequence[str], *, queue: str, at: int) -> None:
        """Run the tasks of a message of `queue`; return when each of them has ended or was enqueued again.

        Raises the exception of `send`; then the message must be requeued. Ended tasks do not run twice.
        """
        with self._counted():
            futures = [self._threads.submit(self._work, task_id) for task_id in task_ids]
            self._wait(futures)
            # Cancel first, so that no thread begins a task while the next line waits for running ones.
            unbegun = [future.cancel() for future in futures]
            left = [
                task_id
                for task_id, future, cancelled in zip(task_ids, futures, unbegun, strict=True)
                if cancelled or not _is_finished(future)
            ]
            if left:
                self._enqueue_again(left, queue, at, pause=not all(unbegun))

    def begin_shutdown(self) -> None:
        """Begin no more tasks: the process is shutting down."""
        self._stopping.set()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _wait(self, futures: Sequence[Future[None]]) -> None:
        deadline = monotonic() + self._begin_within_s
        running = set(futures)
        while running and not self._stopping.is_set() and (left_s := deadline - monotonic()) > 0:
            _, running = wait(running, timeout=min(_POLL_S, left_s))

    def _enqueue_again(self, task_ids: Sequence[str], queue: str, at: int, *, pause: bool) -> None:
        log.warning("%d tasks of a message are enqueued again", len(task_ids))
        if pause:
            self._stopping.wait(PAUSE_S)
        self._send(task_ids, queue, at)

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
    """Wait for the task, which has its own time limits, and return whether it needs no other run."""
    try:
        future.result()
    except (StoreUnavailable, QueueError):
        return False
    except Exception:
        # The task stays open, as a single one would, and the sweeper enqueues it again.
        log.exception("unexpected error in a task")
    return True
