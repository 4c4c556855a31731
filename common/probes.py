"""Questions to what may be silent: asked in the background, so that whoever wants to know waits a bounded time."""

import logging
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import Generic, TypeVar

from common.errors import MatchError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class Unanswered(MatchError):
    """No answer came in time."""


class Probe(Generic[Answer]):
    """Calls `ask` in the background for any number of waiting callers, never twice at the same time."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._changed = Condition()
        self._asking = False
        self._asked = 0
        self._told: tuple[float, Answer | MatchError] = (float("-inf"), Unanswered("not asked yet"))

    def begin(self) -> None:
        """Start to ask, unless that is under way."""
        with self._changed:
            if not self._asking:
                self._asking = True
                Thread(target=self._run, name="probe", daemon=True).start()

    def answer(self, *, within_s: float, not_older_s: float = 0.0) -> Answer:
        """Return a fresh answer, or an earlier one of at most `not_older_s` seconds ago.

        Raises the MatchError that asking raised, Unanswered when there is no answer in time.
        """
        with self._changed:
            if self._told[0] < monotonic() - not_older_s:
                before = self._asked
                self.begin()
                if not self._changed.wait_for(lambda: self._asked > before, within_s):
                    message = f"no answer within {within_s:g} s"
                    raise Unanswered(message)
            _, told = self._told
        if isinstance(told, MatchError):
            raise told
        return told

    def _run(self) -> None:
        told: Answer | MatchError = Unanswered("asking broke")
        try:
            told = self._ask()
        except MatchError as error:
            told = error
        except Exception:
            log.exception("a probe broke")
        finally:
            with self._changed:
                self._asking = False
                self._asked += 1
                self._told = (monotonic(), told)
                self._changed.notify_all()
