"""A deadline for the shutdown of a worker."""

import logging
import os
from threading import Timer

log = logging.getLogger(__name__)

UNFINISHED = 1


def end_within(seconds: float) -> None:
    """End this process after so many seconds, if it has not ended by then.

    A regular shutdown requeues the messages that the worker holds. That may wait long for a Redis that does not answer,
    and the service manager would kill the worker. Its messages are then restored as after any other crash.
    """
    timer = Timer(seconds, _end, args=(seconds,))
    timer.daemon = True
    timer.start()


def _end(seconds: float) -> None:
    log.warning("shutdown not finished after %g s: exiting, messages held by this worker will be restored", seconds)
    logging.shutdown()
    os._exit(UNFINISHED)
