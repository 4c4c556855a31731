"""Preparation of a store that may not be available yet."""

import logging
import math
from threading import Thread
from time import monotonic, sleep

from common.errors import StoreError, StoreUnavailable, StoreUnusable
from common.store.base import Store

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0


def prepare_in_background(store: Store) -> None:
    """Prepare the store in a new thread, with retries until it responds."""
    Thread(target=_prepare, args=(store,), name="prepare-store", daemon=True).start()


def prepare_within(store: Store, seconds: float) -> None:
    """Prepare the store, with retries while it is unavailable.

    Raises StoreUnavailable when it is unavailable for `seconds`, StoreUnusable or StoreError when it cannot be used.
    """
    deadline = monotonic() + seconds
    pause = FIRST_PAUSE_S
    while True:
        try:
            store.prepare()
        except StoreUnusable:
            raise
        except StoreUnavailable as error:
            if monotonic() + pause > deadline:
                raise
            log.warning("the store is not available yet: %s", error)
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        else:
            return


def _prepare(store: Store) -> None:
    reported = ""
    while True:
        try:
            prepare_within(store, math.inf)
        except StoreError as error:
            # An operator must repair this. Until then tasks wait, requests fail, and /readyz reports it.
            if str(error) != reported:
                log.error("the store cannot be used: %s", error)  # noqa: TRY400 - a traceback adds nothing
            reported = str(error)
            if not isinstance(error, StoreUnusable):
                return
        else:
            return
        sleep(LONGEST_PAUSE_S)
