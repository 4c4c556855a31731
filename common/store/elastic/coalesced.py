"""One run of an action for many concurrent callers."""

import threading
from collections.abc import Callable
from concurrent.futures import Future


class Coalesced:
    """An action whose callers share its runs: each returns after a run that began after its call."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._next: Future[None] | None = None

    def __call__(self) -> None:
        """Return or raise like the run; at most one run waits behind the current one."""
        with self._lock:
            leads = self._next is None
            run = self._next = self._next or Future()
        if leads:
            with self._running:
                # A later caller needs the next run.
                with self._lock:
                    self._next = None
                self._lead(run)
        run.result()

    def _lead(self, run: Future[None]) -> None:
        try:
            self._action()
        except BaseException as error:  # noqa: BLE001 - raised again in every caller, including this one
            run.set_exception(error)
        else:
            run.set_result(None)
