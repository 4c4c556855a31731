"""Preparation of a store that may not be available yet."""

import logging
import math
from threading import Thread
from time import monotonic, sleep

from common.errors import StoreError, StoreUnavailable
from common.store.base import Store

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0


def prepare_soon(store: Store) -> None:
    """Prepare the store in a thread of its own, retrying until it answers."""
    Thread(target=_prepare, args=(store,), name="prepare-store", daemon=True).start()


def prepare_within(store: Store, seconds: float) -> None:
    """Prepare the store, retrying while it does not answer.

    Raises StoreUnavailable when it does not answer within so many seconds, and StoreError when it refuses.
    """
    deadline = monotonic() + seconds
    pause = FIRST_PAUSE_S
    while True:
        try:
            store.prepare()
        except StoreUnavailable as error:
            if monotonic() + pause > deadline:
                raise
            log.warning("the store is not available yet: %s", error)
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        else:
            return


def _prepare(store: Store) -> None:
    try:
        prepare_within(store, math.inf)
    except StoreError as error:
        # Only an operator can repair this. Until then the store refuses requests, and /readyz reports it.
        log.error("the store cannot be used: %s", error)  # noqa: TRY400 - a traceback adds nothing
