"""The scheduler: enqueues deferred tasks when their next try is due."""

import logging
from threading import Event, Thread

from common.errors import MatchError
from common.queue.deferred_tasks import DeferredTasks
from workers.host_limiter import HostLimiter

log = logging.getLogger(__name__)

# A task whose host has a fault meanwhile is found within this time.
LONGEST_SLEEP_S = 1.0
SHORTEST_SLEEP_S = 0.05


class Scheduler:
    """A thread in each worker; a task is enqueued by one of them."""

    def __init__(self, tasks: DeferredTasks, host_limiter: HostLimiter) -> None:
        self._tasks = tasks
        self._host_limiter = host_limiter
        self._stop = Event()
        self._thread = Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def enqueue_due(self) -> float:
        """Enqueue the tasks that are due; return the seconds until the next call."""
        due = self._tasks.take_due()
        self._host_limiter.enqueue(due.tasks)
        for host in due.hosts:
            self._host_limiter.admit(host)
        if due.hosts:
            # Their next time is known only after this call.
            return SHORTEST_SLEEP_S
        next_in_s = LONGEST_SLEEP_S if due.next_in_s is None else due.next_in_s
        return min(LONGEST_SLEEP_S, max(SHORTEST_SLEEP_S, next_in_s))

    def _run(self) -> None:
        sleep_s = SHORTEST_SLEEP_S
        while not self._stop.wait(sleep_s):
            sleep_s = LONGEST_SLEEP_S
            try:
                sleep_s = self.enqueue_due()
            except MatchError as error:
                log.warning("deferred tasks are not enqueued yet: %s", error)
            except Exception:
                log.exception("unexpected error while enqueueing deferred tasks")
