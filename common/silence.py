"""A server that is silent: one caller asks whether it is back, the others are told at once."""

from collections.abc import Callable
from threading import Lock
from time import monotonic

# Until somebody asks again.
PAUSE_S = 0.5


class Silence:
    """What the callers of one server know of each other: without it, all of them would wait for one that is silent."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._lasts = False
        self._heard = float("-inf")
        self._ask_at = 0.0

    @property
    def lasts(self) -> bool:
        """Say whether the server was silent when it was last asked."""
        return self._lasts

    def may_ask(self, *, answer_within_s: float) -> bool:
        """Say whether the caller is the one to ask now; if so, it is the only one for so long."""
        with self._lock:
            now = self._clock()
            if now < self._ask_at:
                return False
            self._ask_at = now + answer_within_s
            return True

    def begin(self, *, waited_s: float) -> None:
        """Note that somebody got no answer in so long; if others did meanwhile, the server is not silent."""
        with self._lock:
            now = self._clock()
            if self._heard <= now - waited_s:
                self._ask_at = now + PAUSE_S
                self._lasts = True

    def end(self) -> None:
        """Note that the server answered."""
        self._heard = self._clock()
        self._lasts = False
