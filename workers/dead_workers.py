"""Finds dead workers by their heartbeats, and restarts their work."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from time import monotonic

from common.errors import QueueError
from common.queue.heartbeats import Heartbeats
from common.queue.unacked import Unacked
from workers.repeating import ErrorLog, Repeating

log = logging.getLogger(__name__)

ERRORS = ErrorLog(
    log=log,
    failed="looking for dead workers failed, the next look will try again: %s",
    unexpected="unexpected error while looking for dead workers",
)

# Three looks find a worker that is silent for 8 to 10 s. Its heartbeats are 3 s apart, and one that Redis does not
# answer takes 5 s longer.
LOOK_EVERY_S = 2.0
LOOKS = 3
ABSENT_AFTER_S = 4.0
# A longer look shows that Redis was silent, as does one that fails.
LOOK_WITHIN_S = 1.0
# Time after a silence of Redis during which no absence counts: workers connect again.
SETTLE_S = 15.0


class Absences:
    """Counts the looks in a row in which each worker was absent. `now` is the time of a look, in seconds."""

    def __init__(self) -> None:
        self._absences: Counter[str] = Counter()
        self._counted_from = 0.0
        self._last_look: float | None = None

    def look(self, ages_s: Mapping[str, float], *, now: float) -> list[str]:
        """Return the workers that are dead, by the ages of the last heartbeats."""
        if self._last_look is not None and now - self._last_look > 2 * LOOK_EVERY_S + LOOK_WITHIN_S:
            # This process was stopped, and perhaps the others with it.
            self.forget(now=now)
        self._last_look = now
        if now < self._counted_from:
            return []
        # A negative age is from before the clock was set back: a living worker replaces it soon.
        absent = [name for name, age_s in ages_s.items() if abs(age_s) > ABSENT_AFTER_S]
        self._absences = Counter({name: self._absences[name] + 1 for name in absent})
        return [name for name, looks in self._absences.items() if looks >= LOOKS]

    def forget(self, *, now: float) -> None:
        """Start again after a look that Redis did not answer in time."""
        self._absences.clear()
        self._counted_from = now + SETTLE_S
        self._last_look = now


class DeadWorkers(Repeating):
    """A thread that looks for dead workers, in each worker: no one's death delays it.

    `sweep` enqueues the tasks whose message died with a worker, and returns their number.
    """

    def __init__(self, heartbeats: Heartbeats, unacked: Unacked, sweep: Callable[[], int], *, own_name: str) -> None:
        super().__init__("dead-workers", ERRORS, every_s=LOOK_EVERY_S, first_after_s=0.0)
        self._heartbeats = heartbeats
        self._unacked = unacked
        self._sweep = sweep
        self._own_name = own_name
        self._absences = Absences()

    def _repeat(self) -> None:
        if dead := self._look():
            self._restart_work_of(dead)

    def _look(self) -> list[str]:
        began = monotonic()
        try:
            ages_s = self._heartbeats.ages_s()
        except QueueError:
            self._absences.forget(now=monotonic())
            raise
        now = monotonic()
        if now - began > LOOK_WITHIN_S:
            self._absences.forget(now=now)
        return self._absences.look({name: age for name, age in ages_s.items() if name != self._own_name}, now=now)

    def _restart_work_of(self, dead: list[str]) -> None:
        """Restart the work of dead workers, then forget them; other workers may do the same at once."""
        lost = self._sweep()
        messages = self._unacked.restore(dead)
        for name in dead:
            self._heartbeats.end(name)
        log.warning(
            "%d dead workers: %d messages are in the queue again, and %d lost ones (%s)",
            len(dead),
            messages,
            lost,
            ", ".join(dead),
        )
