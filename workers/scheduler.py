"""The scheduler: enqueues deferred tasks when their next try is due."""

import logging

from common.queue.deferred_tasks import DeferredTasks
from workers.host_limiter import HostLimiter
from workers.repeating import ErrorLog, Repeating

ERRORS = ErrorLog(
    log=logging.getLogger(__name__),
    failed="deferred tasks are not enqueued yet: %s",
    unexpected="unexpected error while enqueueing deferred tasks",
)

# A task whose host has a fault meanwhile is found within this time.
LONGEST_SLEEP_S = 1.0
SHORTEST_SLEEP_S = 0.05


class Scheduler(Repeating):
    """A thread in each worker; a task is enqueued by one of them."""

    def __init__(self, tasks: DeferredTasks, host_limiter: HostLimiter) -> None:
        super().__init__("scheduler", ERRORS, every_s=LONGEST_SLEEP_S, first_after_s=SHORTEST_SLEEP_S)
        self._tasks = tasks
        self._host_limiter = host_limiter

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

    def _repeat(self) -> float:
        return self.enqueue_due()
