"""A circuit breaker: while a server is silent, one caller asks whether it is back, the others are refused at once."""

from collections.abc import Callable
from threading import Lock
from time import monotonic

# Until somebody asks again.
PAUSE_S = 0.5


class CircuitBreaker:
    """What the callers of one server know of each other: without it, all of them would wait for one that is silent."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._is_open = False
        self._answered = float("-inf")
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Say whether the server was silent when it was last asked."""
        return self._is_open

    def may_probe(self, *, answer_within_s: float) -> bool:
        """Say whether the caller is the one to ask now; if so, it is the only one for so long."""
        with self._lock:
            now = self._clock()
            if now < self._probe_at:
                return False
            self._probe_at = now + answer_within_s
            return True

    def trip(self, *, waited_s: float) -> None:
        """Note that a caller waited so long for no answer; if others got one meanwhile, the server is not silent."""
        with self._lock:
            now = self._clock()
            if self._answered <= now - waited_s:
                self._probe_at = now + PAUSE_S
                self._is_open = True

    def reset(self) -> None:
        """Note that the server answered."""
        self._answered = self._clock()
        self._is_open = False
