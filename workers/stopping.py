"""The end of a worker that was told to stop: in time, whatever holds it up."""

import logging
import os
from threading import Timer

log = logging.getLogger(__name__)

UNFINISHED = 1


def end_within(seconds: float) -> None:
    """End this process after so many seconds if it has not ended by itself until then.

    Giving back what it holds may wait long for a Redis that is silent, and whoever told it to stop would kill it. What
    it holds then comes back by itself, as after any other death.
    """
    timer = Timer(seconds, _end, args=(seconds,))
    timer.daemon = True
    timer.start()


def _end(seconds: float) -> None:
    log.warning("told to stop %g s ago, and still held up: what is held comes back by itself", seconds)
    logging.shutdown()
    os._exit(UNFINISHED)
