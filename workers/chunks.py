"""Messages that hold many tasks: worked side by side, each task with an end of its own."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event, Lock
from time import monotonic

from common.errors import QueueError, StoreUnavailable
from common.queue.jobs import BATCH_QUEUE

log = logging.getLogger(__name__)

# A process takes no more of them at once: what waits in the queue is there for every worker, and single adds, which
# share the threads' cores with them, stay quick. Two keep the threads busy, two more cover a slow last task.
MOST_AT_ONCE = 4
# So soon it hears that the process is to end.
_GLANCE_S = 0.5
# What cannot be reached now cannot be reached at once either: what goes back must not spin.
PAUSE_S = 1.0


class Chunks:
    """Works the tasks of a message in threads that all messages of the process share.

    `work` does one task, and raises StoreUnavailable or QueueError when that cannot be finished now. `send` is given
    task ids, a queue, and when their message was sent (ms since 1970). What has not begun after `patience_s` goes back.
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
        self._held = 0

    def is_full(self) -> bool:
        """Say whether this process has as many of these messages as it should."""
        return self._held >= MOST_AT_ONCE

    def run(self, task_ids: Sequence[str], *, at: int) -> None:
        """Return when each task has ended, or has been sent again in a message of its own.

        Whatever `send` raises is raised: then the whole message has to come again, and what ended is not done twice.
        """
        with self._one_more():
            futures = [self._threads.submit(self._work, task_id) for task_id in task_ids]
            self._wait(futures)
            # First, so that no other thread begins one of them while the next line waits for those that run.
            unbegun = [future.cancel() for future in futures]
            left = [
                task_id
                for task_id, future, cancelled in zip(task_ids, futures, unbegun, strict=True)
                if cancelled or not _is_finished(future)
            ]
            if left:
                self._give_back(left, at, pause=not all(unbegun))

    def hurry(self) -> None:
        """Begin nothing more: the process is to end."""
        self._hurry.set()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _wait(self, futures: Sequence[Future[None]]) -> None:
        deadline = monotonic() + self._patience_s
        running = set(futures)
        while running and not self._hurry.is_set() and (left_s := deadline - monotonic()) > 0:
            _, running = wait(running, timeout=min(_GLANCE_S, left_s))

    def _give_back(self, task_ids: Sequence[str], at: int, *, pause: bool) -> None:
        log.warning("%d of a message's tasks go back to the queue", len(task_ids))
        if pause:
            self._hurry.wait(PAUSE_S)
        self._send(task_ids, BATCH_QUEUE, at)

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        with self._lock:
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1


def _is_finished(future: Future[None]) -> bool:
    """Wait for the task, which is bounded by its own limits, and say whether nothing is left to be done."""
    try:
        future.result()
    except (StoreUnavailable, QueueError):
        return False
    except Exception:
        # As with a single task: it stays open, and the sweeper sends it once more.
        log.exception("a task broke its thread")
    return True
