"""Worker events, sent once a second instead of once per iteration of the event loop."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events

EVERY_S = 1.0


class EventsOnceASecond(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A consumer step that flushes buffered events periodically.

    By default a busy worker publishes after nearly every event, which takes a sixth of its main thread's time.
    """

    requires = (Events,)
    _timer: Any = None

    def start(self, c: Any) -> None:  # noqa: ANN401 - Celery has no types
        """Send buffered events every second; a full buffer is still sent at once."""
        c.event_dispatcher.on_send_buffered = None
        self._timer = c.timer.call_repeatedly(EVERY_S, c.event_dispatcher.flush)

    def stop(self, c: Any) -> None:  # noqa: ANN401 - Celery has no types
        """Cancel the timer; the next connection starts another."""
        del c
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
