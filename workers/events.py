"""Sends a worker's events once a second, not once a turn of its loop."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events

EVERY_S = 1.0


class EventsOnceASecond(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A step of the consumer that takes over when its buffered events are sent.

    Left alone, a busy worker publishes after nearly every event, a sixth of the time its main thread has.
    """

    requires = (Events,)
    _timer: Any = None

    def start(self, c: Any) -> None:  # noqa: ANN401 - Celery has no types
        """Send what is buffered every second; a full buffer is sent at once as before."""
        c.event_dispatcher.on_send_buffered = None
        self._timer = c.timer.call_repeatedly(EVERY_S, c.event_dispatcher.flush)

    def stop(self, c: Any) -> None:  # noqa: ANN401 - Celery has no types
        """Leave the timer to the next connection's step."""
        del c
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
