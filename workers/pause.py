"""The thread that looks whether the queue is paused."""

import logging

from common.errors import QueueError
from common.queue.pause import Pause
from workers.repeating import ErrorLog, Repeating

log = logging.getLogger(__name__)

ERRORS = ErrorLog(
    log=log,
    failed="the pause of the queue is unknown: %s",
    unexpected="unexpected error while looking for a pause",
    level=logging.DEBUG,
)

EVERY_S = 1.0


class QueuePaused(QueueError):
    """The queue is paused: the task begins later."""

    def __init__(self) -> None:
        super().__init__("the queue is paused")


class PauseWatch(Repeating):
    """Knows whether the queue is paused, at most a second late; until Redis has answered once it counts as paused."""

    def __init__(self, pause: Pause, *, every_s: float = EVERY_S) -> None:
        # Its end is not waited for: Redis may be silent.
        super().__init__("pause-watch", ERRORS, every_s=every_s, first_after_s=0.0, close_within_s=0.0)
        self._pause = pause
        self._is_paused = True
        self._is_known = False

    @property
    def is_paused(self) -> bool:
        """Whether no new task may begin."""
        return self._is_paused

    def check(self) -> None:
        """Raise QueuePaused while the queue is paused."""
        if self._is_paused:
            raise QueuePaused

    def look(self) -> None:
        """Ask Redis; while it does not answer, the last answer holds."""
        with ERRORS.continuing():
            is_paused = self._pause.is_set()
            if is_paused != (self._is_known and self._is_paused):
                log.warning("the queue is paused: no task begins" if is_paused else "the queue is resumed")
            self._is_paused, self._is_known = is_paused, True

    def _repeat(self) -> None:
        self.look()
