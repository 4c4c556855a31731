"""The thread that looks whether the queue is paused."""

import logging
from threading import Event, Thread

from common.errors import MatchError, QueueError
from common.queue.pause import Pause

log = logging.getLogger(__name__)

EVERY_S = 1.0


class QueuePaused(QueueError):
    """The queue is paused: the task begins later."""

    def __init__(self) -> None:
        super().__init__("the queue is paused")


class PauseWatch:
    """Knows whether the queue is paused, at most a second late; until Redis has answered once it counts as paused."""

    def __init__(self, pause: Pause, *, every_s: float = EVERY_S) -> None:
        self._pause = pause
        self._every_s = every_s
        self._is_paused = True
        self._is_known = False
        self._stop = Event()
        self._thread = Thread(target=self._run, name="pause-watch", daemon=True)

    @property
    def is_paused(self) -> bool:
        """Whether no new task may begin."""
        return self._is_paused

    def check(self) -> None:
        """Raise QueuePaused while the queue is paused."""
        if self._is_paused:
            raise QueuePaused

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; it is not waited for, since Redis may be silent."""
        self._stop.set()

    def look(self) -> None:
        """Ask Redis; while it does not answer, the last answer holds."""
        try:
            is_paused = self._pause.is_set()
        except MatchError as error:
            log.debug("the pause of the queue is unknown: %s", error)
            return
        if is_paused != (self._is_known and self._is_paused):
            log.warning("the queue is paused: no task begins" if is_paused else "the queue is resumed")
        self._is_paused, self._is_known = is_paused, True

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                # Continue: without this thread no pause would end.
                log.exception("unexpected error while looking for a pause")
            if self._stop.wait(self._every_s):
                return
