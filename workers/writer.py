"""Group commit: the records of many tasks in one write, with an outcome for each task."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic

from opentelemetry.trace import SpanContext, get_current_span

from common.errors import MatchError, StoreError, StoreUnavailable
from common.queue.tasks import Claim, State, TaskResult
from common.store.base import Record, Store, Verdict, Written
from common.store.thumbnails import Owner, Thumbnail, Thumbnails
from common.warning_codes import FEATURELESS
from workers.finishing import TaskFinisher
from workers.instrumentation import Instrumentation

log = logging.getLogger(__name__)

# Pauses between two attempts at an unavailable store: long enough to be cheap, short enough to resume soon.
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

STATE_OF = {Verdict.STORED: State.SUCCEEDED, Verdict.SUPERSEDED: State.SUPERSEDED, Verdict.REJECTED: State.FAILED}


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    claim: Claim
    record: Record
    thumbnail: bytes | None
    due: float
    span: SpanContext
    outcome: Future[TaskResult] = field(default_factory=Future)


class Writer:
    """A thread that writes the records of all tasks of the process, and finishes each task in the ledger.

    A write waits at most `linger_s` to fill up to `max_records` records. A record waits at most `hold_s` for an
    unavailable store. The thumbnails of stored records are written next; a task does not fail for its thumbnail.
    """

    def __init__(  # noqa: PLR0913 - the options are keyword arguments
        self,
        store: Store,
        finisher: TaskFinisher,
        *,
        max_records: int,
        linger_s: float,
        hold_s: float,
        thumbnails: Thumbnails | None = None,
        instrumentation: Instrumentation | None = None,
    ) -> None:
        self._store = store
        self._thumbnails = thumbnails
        self._finisher = finisher
        self._instrumentation = instrumentation or Instrumentation()
        self._max_records = max_records
        self._linger_s = linger_s
        self._hold_s = hold_s
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def write(self, claim: Claim, record: Record, thumbnail: bytes | None = None) -> TaskResult:
        """Write the record and finish its task; return its result once store and ledger have confirmed it.

        Raises StoreUnavailable if the store stays unavailable, QueueError if the ledger does not confirm.
        """
        due, span = monotonic() + self._hold_s, get_current_span().get_span_context()
        entry = _Waiting(claim, record, thumbnail, due=due, span=span)
        self._waiting.put(entry)
        return entry.outcome.result()

    def begin_shutdown(self) -> None:
        """Stop waiting for an unavailable store: the process is shutting down."""
        self._stopping.set()

    def close(self) -> None:
        """Write the pending records, then end the thread."""
        self.begin_shutdown()
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        pending: list[_Waiting] = []
        pause = FIRST_PAUSE_S
        open_ = True
        while open_ or pending:
            group, open_ = self._gather(pending) if open_ else (pending, False)
            pending = self._still_pending(self._commit_or_fail(group))
            if len(pending) < len(group):
                # Pauses grow only while the store accepts no record.
                pause = FIRST_PAUSE_S
            if pending:
                self._stopping.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _gather(self, pending: list[_Waiting]) -> tuple[list[_Waiting], bool]:
        """Return the next group, pending records first, and whether the queue is still open."""
        group = list(pending)
        deadline = monotonic() + self._linger_s
        while len(group) < self._max_records:
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

    def _commit_or_fail(self, group: list[_Waiting]) -> list[_Waiting]:
        """Write the group; any error is reported to its tasks, so that the thread continues."""
        try:
            return self._commit(group)
        except MatchError as error:
            # The records may be stored. Their messages are redelivered, and a second write changes nothing.
            log.warning("%d records were not confirmed: %s", len(group), error)
            _fail(group, error)
        except Exception as error:
            log.exception("unexpected error while writing %d records", len(group))
            _fail(group, error)
        return []

    def _commit(self, group: list[_Waiting]) -> list[_Waiting]:
        """Write the group, finish the tasks with a final outcome, and return the records to write again later."""
        outcomes = self._put(group)
        self._put_thumbnails([entry for entry, done in outcomes if done.verdict is Verdict.STORED])
        results = [(entry, _result(entry, done)) for entry, done in outcomes if done.verdict in STATE_OF]
        self._finisher.finish([result for _, result in results])
        for entry, result in results:
            entry.outcome.set_result(result)
        return [entry for entry, done in outcomes if done.verdict is Verdict.RETRY]

    def _put(self, group: list[_Waiting]) -> list[tuple[_Waiting, Written]]:
        try:
            with self._instrumentation.time_write([entry.span for entry in group]):
                replaced = self._replaced(group)
                outdated = [entry for entry in replaced if _is_outdated(entry, replaced[entry])]
                current = [entry for entry in group if entry not in outdated]
                records = [_with_metadata(entry.record, replaced.get(entry)) for entry in current]
                written = self._store.put(records) if current else []
                superseded = [(entry, Written(Verdict.SUPERSEDED)) for entry in outdated]
                return [*zip(current, written, strict=True), *superseded]
        except StoreUnavailable as error:
            log.warning("%d records are waiting for the store: %s", len(group), error)
            return [(entry, Written(Verdict.RETRY, str(error))) for entry in group]
        except StoreError as error:
            if len(group) == 1:
                return [(group[0], Written(Verdict.REJECTED, str(error)))]
            # One record may have failed the write of all: write each separately.
            return [outcome for entry in group for outcome in self._put([entry])]

    def _put_thumbnails(self, entries: Sequence[_Waiting]) -> None:
        """Keep the thumbnails of stored records, before their tasks end."""
        thumbnails = [
            Thumbnail(
                Owner(seq=each.record.seq, filepath=each.record.filepath, collection=each.record.collection),
                each.thumbnail,
            )
            for each in entries
            if each.thumbnail is not None
        ]
        if self._thumbnails is None or not thumbnails:
            return
        try:
            self._thumbnails.put(thumbnails)
        except MatchError as error:
            log.warning("%d thumbnails were not kept: %s", len(thumbnails), error)

    def _replaced(self, group: Sequence[_Waiting]) -> dict[_Waiting, Record | None]:
        """Return the stored records of those that may only replace one record; None if it was deleted."""
        bound = [entry for entry in group if entry.claim.replaces is not None]
        stored = {
            collection: self._store.records(
                [entry.record.filepath for entry in bound if entry.record.collection == collection],
                collection=collection,
            )
            for collection in {entry.record.collection for entry in bound}
        }
        return {entry: stored[entry.record.collection].get(entry.record.filepath) for entry in bound}

    def _still_pending(self, entries: Sequence[_Waiting]) -> list[_Waiting]:
        """Fail the records that have waited for too long, and return the others."""
        now = monotonic()
        late = [entry for entry in entries if self._stopping.is_set() or entry.due <= now]
        for entry in late:
            entry.outcome.set_exception(StoreUnavailable("the store was unavailable for too long"))
        return [entry for entry in entries if entry not in late]


def _is_outdated(entry: _Waiting, existing: Record | None) -> bool:
    # Its own sequence number: the record was written, and its message is delivered again.
    return existing is None or existing.seq not in {entry.claim.replaces, entry.record.seq}


def _with_metadata(record: Record, existing: Record | None) -> Record:
    """Return the record with the metadata of the one that it replaces, which may have been patched meanwhile."""
    if existing is None:
        return record
    return record.with_metadata(existing.metadata, seq=existing.last_metadata_seq)


def _fail(group: list[_Waiting], error: Exception) -> None:
    for entry in group:
        if not entry.outcome.done():
            entry.outcome.set_exception(error)


def _result(entry: _Waiting, written: Written) -> TaskResult:
    state = STATE_OF[written.verdict]
    if state is State.FAILED:
        return entry.claim.result(state, code=StoreError.code, error=written.reason)
    if state is State.SUCCEEDED and entry.record.is_featureless:
        return entry.claim.result(state, warning=FEATURELESS)
    return entry.claim.result(state)
