"""The deadline of a worker's shutdown."""

import logging
import os
from threading import Timer

log = logging.getLogger(__name__)

UNFINISHED = 1


def end_within(seconds: float) -> None:
    """End this process after `seconds`, if it has not ended by then.

    A regular shutdown requeues the unacknowledged messages. If Redis does not answer, that may take so long that the
    service manager kills the worker. After this deadline, messages are redelivered as after a crash.
    """
    timer = Timer(seconds, _end, args=(seconds,))
    timer.daemon = True
    timer.start()


def _end(seconds: float) -> None:
    log.warning("shutdown not finished after %g s: exiting, unacknowledged messages will be redelivered", seconds)
    logging.shutdown()
    os._exit(UNFINISHED)
