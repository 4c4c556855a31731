"""Worker events, sent once a second rather than once per iteration of the event loop."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events

EVERY_S = 1.0


class EventsOnceASecond(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A consumer step that schedules when buffered events are sent.

    By default a busy worker publishes after nearly every event, which takes a sixth of its main thread's time.
    """

    requires = (Events,)
    _timer: Any = None

    def start(self, c: Any) -> None:  # noqa: ANN401 - Celery has no types
        """Send buffered events every second; a full buffer is still sent at once."""
        c.event_dispatcher.on_send_buffered = None
        self._timer = c.timer.call_repeatedly(EVERY_S, c.event_dispatcher.flush)

    def stop(self, c: Any) -> None:  # noqa: ANN401 - Celery has no types
        """Leave the timer to the next connection's step."""
        del c
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
