"""Group commit: many tasks' records, one write, each task its own outcome."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic

from common.errors import MatchError, StoreError, StoreUnavailable
from common.queue.tasks import Claim, State
from common.store.base import Record, Store, Verdict, Written
from workers.settlement import End, Settlement
from workers.signals import Signals

log = logging.getLogger(__name__)

# Between two tries at a store that is away: long enough to burn nothing, short enough to notice its return.
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

END_OF = {Verdict.STORED: State.SUCCEEDED, Verdict.SUPERSEDED: State.SUPERSEDED, Verdict.REJECTED: State.FAILED}


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    claim: Claim
    record: Record
    due: float
    trace: str
    outcome: Future[State] = field(default_factory=Future)


class Writer:
    """One thread that writes what the process's tasks hand it, and confirms each task in the ledger.

    `linger_s` is the longest wait for a write to fill up to `most` records; `hold_s` how long a record waits for a
    store that is away.
    """

    def __init__(  # noqa: PLR0913 - the options are named at every call
        self,
        store: Store,
        settlement: Settlement,
        *,
        most: int,
        linger_s: float,
        hold_s: float,
        signals: Signals | None = None,
    ) -> None:
        self._store = store
        self._settlement = settlement
        self._signals = signals or Signals()
        self._most = most
        self._linger_s = linger_s
        self._hold_s = hold_s
        self._waiting: SimpleQueue[_Entry | None] = SimpleQueue()
        self._hurry = Event()
        self._thread = Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def write(self, claim: Claim, record: Record) -> State:
        """Return how the task ended, once the store and the ledger have confirmed it.

        Raises StoreUnavailable when the store stayed away, QueueError when the ledger did not confirm.
        """
        entry = _Entry(claim, record, due=monotonic() + self._hold_s, trace=self._signals.trace())
        self._waiting.put(entry)
        return entry.outcome.result()

    def hurry(self) -> None:
        """Hold nothing any longer for a store that is away: the process is to end."""
        self._hurry.set()

    def close(self) -> None:
        """Write what waits, then end the thread."""
        self.hurry()
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        held: list[_Entry] = []
        pause = FIRST_PAUSE_S
        open_ = True
        while open_ or held:
            group, open_ = self._gather(held) if open_ else (held, False)
            held = self._still_held(self._commit_or_fail(group))
            if len(held) < len(group):
                # Only a store that takes nothing at all is left alone for longer and longer.
                pause = FIRST_PAUSE_S
            if held:
                self._hurry.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _gather(self, held: list[_Entry]) -> tuple[list[_Entry], bool]:
        """Return the next group, the held ones first, and whether more may come."""
        group = list(held)
        deadline = monotonic() + self._linger_s
        while len(group) < self._most:
            try:
                entry = self._waiting.get(timeout=max(0.0, deadline - monotonic()) if group else None)
            except Empty:
                break
            if entry is None:
                return group, False
            if not group:
                deadline = monotonic() + self._linger_s
            group.append(entry)
        return group, True

    def _commit_or_fail(self, group: list[_Entry]) -> list[_Entry]:
        """Write the group; whatever fails, its tasks hear of it, and the thread that they all wait for lives on."""
        try:
            return self._commit(group)
        except MatchError as error:
            # Perhaps stored, not confirmed: the messages go back and the repeat changes nothing.
            log.warning("%d records are not confirmed: %s", len(group), error)
            _fail(group, error)
        except Exception as error:
            log.exception("a group of %d records broke the writer", len(group))
            _fail(group, error)
        return []

    def _commit(self, group: list[_Entry]) -> list[_Entry]:
        """Write the group, settle what has an outcome, and return what the store could not take now."""
        self._settlement.spare([entry.claim for entry in group])
        outcomes = self._put(group)
        decided = [(entry, END_OF[done.verdict], done) for entry, done in outcomes if done.verdict in END_OF]
        self._settlement.settle([_end(entry.claim, state, done) for entry, state, done in decided])
        for entry, state, _ in decided:
            entry.outcome.set_result(state)
        return [entry for entry, done in outcomes if done.verdict is Verdict.RETRY]

    def _put(self, group: list[_Entry]) -> list[tuple[_Entry, Written]]:
        try:
            with self._signals.bulk([entry.trace for entry in group]):
                return list(zip(group, self._store.put([entry.record for entry in group]), strict=True))
        except StoreUnavailable as error:
            log.warning("%d records wait for the store: %s", len(group), error)
            return [(entry, Written(Verdict.RETRY, str(error))) for entry in group]
        except StoreError as error:
            if len(group) == 1:
                return [(group[0], Written(Verdict.REJECTED, str(error)))]
            # One record may have spoiled the write for all: each for itself.
            return [outcome for entry in group for outcome in self._put([entry])]

    def _still_held(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Give up on what waited too long, and return the rest."""
        now = monotonic()
        late = [entry for entry in entries if self._hurry.is_set() or entry.due <= now]
        for entry in late:
            entry.outcome.set_exception(StoreUnavailable("the store did not take the record in time"))
        return [entry for entry in entries if entry not in late]


def _fail(group: list[_Entry], error: Exception) -> None:
    for entry in group:
        if not entry.outcome.done():
            entry.outcome.set_exception(error)


def _end(claim: Claim, state: State, written: Written) -> End:
    if state is State.FAILED:
        return End(claim, state, code=StoreError.code, error=written.reason)
    return End(claim, state)
