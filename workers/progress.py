"""The thread that logs a worker's progress while it works."""

import logging
from collections import Counter
from collections.abc import Callable
from threading import Lock
from time import monotonic

from common.errors import MatchError
from common.queue.tasks import State
from workers.repeating import ErrorLog, Repeating

log = logging.getLogger(__name__)

ERRORS = ErrorLog(
    log=log,
    failed="the progress is not reported: %s",
    unexpected="unexpected error in the report of the progress",
)

EVERY_S = 10.0


class Progress(Repeating):
    """Counts the tasks that this process finished; `waiting` returns the number of tasks that wait for any worker."""

    def __init__(self, waiting: Callable[[], int], *, every_s: float = EVERY_S) -> None:
        # Its end is not waited for: Redis may be silent.
        super().__init__("progress", ERRORS, every_s=every_s, close_within_s=0.0)
        self._waiting = waiting
        self._lock = Lock()
        self._finished: Counter[State] = Counter()
        self._since = monotonic()

    def close(self) -> None:
        """End the thread, and log the tasks since the last line."""
        super().close()
        self.report()

    def count(self, state: State) -> None:
        """Count a finished task."""
        with self._lock:
            self._finished[state] += 1

    def report(self) -> None:
        """Log the tasks since the last call, unless there are none."""
        with self._lock:
            finished, self._finished = self._finished, Counter()
            now = monotonic()
            seconds, self._since = now - self._since, now
        if not finished:
            return
        stored, failed = finished[State.SUCCEEDED], finished[State.FAILED]
        others = "".join(f"{count} {state}, " for state, count in sorted(finished.items()) if state not in _NAMED)
        rate = finished.total() / max(seconds, 1e-3)
        log.info("stored %d, failed %d, %s%.1f a second; %s waiting", stored, failed, others, rate, self._left())

    def _left(self) -> str:
        try:
            return str(self._waiting())
        except MatchError:
            return "an unknown number"

    def _repeat(self) -> None:
        self.report()


_NAMED = {State.SUCCEEDED, State.FAILED}
