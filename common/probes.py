"""Probes of servers that may not respond: they run in the background, so that callers wait a bounded time."""

import logging
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import Generic, TypeVar

from common.errors import MatchError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class Unanswered(MatchError):
    """The probe did not return in time."""


class Probe(Generic[Answer]):
    """Calls `ask` in the background for any number of waiting callers, one call at a time."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._changed = Condition()
        self._asking = False
        self._asked = 0
        self._result: tuple[float, Answer | MatchError] = (float("-inf"), Unanswered("not probed yet"))

    def begin(self) -> None:
        """Start a call, unless one is running."""
        with self._changed:
            if not self._asking:
                self._asking = True
                Thread(target=self._run, name="probe", daemon=True).start()

    def answer(self, *, within_s: float, not_older_s: float = 0.0) -> Answer:
        """Return the result of a new call, or an earlier one of at most `not_older_s` seconds ago.

        Raises the MatchError that the call raised, and Unanswered if it did not return in time.
        """
        with self._changed:
            if self._result[0] < monotonic() - not_older_s:
                before = self._asked
                self.begin()
                if not self._changed.wait_for(lambda: self._asked > before, within_s):
                    message = f"no answer within {within_s:g} s"
                    raise Unanswered(message)
            _, result = self._result
        if isinstance(result, MatchError):
            raise result
        return result

    def _run(self) -> None:
        result: Answer | MatchError = Unanswered("the probe failed")
        try:
            result = self._ask()
        except MatchError as error:
            result = error
        except Exception:
            log.exception("a probe failed")
        finally:
            with self._changed:
                self._asking = False
                self._asked += 1
                self._result = (monotonic(), result)
                self._changed.notify_all()
