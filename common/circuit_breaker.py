"""A circuit breaker: while a server does not respond, one caller probes it, and all others fail at once."""

from collections.abc import Callable
from threading import Lock
from time import monotonic

# Between two probes.
PAUSE_S = 0.5


class CircuitBreaker:
    """The state that all callers of one server share, so that they do not all wait while it does not respond."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._is_open = False
        self._responded_at = float("-inf")
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Return whether the server did not respond to its last call."""
        return self._is_open

    def may_probe(self, *, answer_within_s: float) -> bool:
        """Return whether the caller may probe now; if so, no other caller may until `answer_within_s` have passed."""
        with self._lock:
            now = self._clock()
            if now < self._probe_at:
                return False
            self._probe_at = now + answer_within_s
            return True

    def trip(self, *, waited_s: float) -> None:
        """Record that a call timed out after `waited_s`; ignored if another call got a response meanwhile."""
        with self._lock:
            now = self._clock()
            if self._responded_at <= now - waited_s:
                self._probe_at = now + PAUSE_S
                self._is_open = True

    def reset(self) -> None:
        """Record a response."""
        self._responded_at = self._clock()
        self._is_open = False
