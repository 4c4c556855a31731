"""Prepares a store that may not be there yet."""

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
    """Prepare the store in a thread of its own, again and again until it answers."""
    Thread(target=_prepare, args=(store,), name="prepare-store", daemon=True).start()


def prepare_within(store: Store, seconds: float) -> None:
    """Prepare the store, again and again while it does not answer.

    Raises StoreUnavailable when it still does not after so many seconds, and StoreError when it refuses.
    """
    deadline = monotonic() + seconds
    pause = FIRST_PAUSE_S
    while True:
        try:
            store.prepare()
        except StoreUnavailable as error:
            if monotonic() + pause > deadline:
                raise
            log.warning("the store is not there yet: %s", error)
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        else:
            return


def _prepare(store: Store) -> None:
    try:
        prepare_within(store, math.inf)
    except StoreError as error:
        # Only an operator can mend this; the store itself goes on refusing until then, and says so to /readyz.
        log.error("the store cannot be used: %s", error)  # noqa: TRY400 - the line says it all
