"""Checks that run in the background, so that a caller waits a bounded time for a dependency that does not answer."""

import logging
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import Generic, TypeVar

from common.errors import MatchError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class ProbeTimeout(MatchError):
    """The check did not finish in time."""


class Probe(Generic[Result]):
    """Runs `check` in the background for any number of waiting callers, never twice at the same time."""

    def __init__(self, check: Callable[[], Result]) -> None:
        self._check = check
        self._changed = Condition()
        self._running = False
        self._finished = 0
        self._latest: tuple[float, Result | MatchError] = (float("-inf"), ProbeTimeout("not checked yet"))

    def start(self) -> None:
        """Start a check, unless one is running."""
        with self._changed:
            if not self._running:
                self._running = True
                Thread(target=self._run, name="probe", daemon=True).start()

    def result(self, *, timeout_s: float, max_age_s: float = 0.0) -> Result:
        """Return the result of a check that finishes now, or of one at most `max_age_s` seconds ago.

        Raises the MatchError that the check raised, ProbeTimeout when no check finishes in time.
        """
        with self._changed:
            if self._latest[0] < monotonic() - max_age_s:
                before = self._finished
                self.start()
                if not self._changed.wait_for(lambda: self._finished > before, timeout_s):
                    message = f"no answer within {timeout_s:g} s"
                    raise ProbeTimeout(message)
            _, latest = self._latest
        if isinstance(latest, MatchError):
            raise latest
        return latest

    def _run(self) -> None:
        result: Result | MatchError = ProbeTimeout("the check failed")
        try:
            result = self._check()
        except MatchError as error:
            result = error
        except Exception:
            log.exception("a dependency check failed")
        finally:
            with self._changed:
                self._running = False
                self._finished += 1
                self._latest = (monotonic(), result)
                self._changed.notify_all()
