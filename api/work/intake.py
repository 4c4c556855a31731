"""From pictures in a request to tasks that will not be lost."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from api.forms.sources import Source, naming
from api.pictures import vet
from api.work.idempotency import IdempotencyConflict
from api.work.publisher import Publisher
from common.errors import MatchError, Overloaded, QueueUnavailable
from common.images.formats import check_format
from common.net.fetch import Fetcher
from common.queue.admission import Admission
from common.queue.jobs import SINGLE_QUEUE, AddJob, Metadata, Order, Origin
from common.queue.ledger import Ledger
from common.queue.tasks import Entered, Entry, Known, State, Task
from common.telemetry.tracing import OFF, PRODUCER, Tracing
from common.uploads import Uploads


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """A picture that somebody wants to be stored.

    `form` tells which kind of request brought it; `callback` and `task_id` are as in `Order`.
    """

    filepath: str
    source: Source
    metadata: Metadata | None = None
    form: str = ""
    callback: str = ""
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Intake:
    """Accepts adds: upload, ledger, queue, in this order."""

    admission: Admission
    ledger: Ledger
    uploads: Uploads
    publisher: Publisher
    fetcher: Fetcher
    tracing: Tracing = OFF

    def accept(self, wanted: Wanted, *, request_id: str = "") -> Entry:
        """Return the entry of the task, written where it survives a crash of this process.

        Raises InputError or ImageError for what can never be stored, IdempotencyConflict for a task that is another
        order's, Overloaded or QueueUnavailable when it cannot be accepted now; then nothing is left behind.
        """
        task_ids = [wanted.task_id] if wanted.task_id else []
        [outcome] = self.accept_all([wanted], queue=SINGLE_QUEUE, request_id=request_id, task_ids=task_ids)
        if isinstance(outcome, MatchError):
            raise outcome
        return outcome

    def accept_all(
        self,
        wanted: Iterable[Wanted | MatchError],
        *,
        queue: str,
        request_id: str = "",
        task_ids: Sequence[str] = (),
    ) -> list[Entry | MatchError]:
        """Return what became of each, in order: its task's entry, or the error that `accept` would raise.

        `request_id` names the request that brought them, `task_ids` are those of `wanted` that have any. What comes as
        an error stays one. Uploads are taken one after another, so that only one is held at a time; the ledger takes
        all at once. What is known already needs no room.
        """
        try:
            known = self.ledger.known(task_ids) if task_ids else {}
        except MatchError as error:
            return [one if isinstance(one, MatchError) else error for one in wanted]
        orders = [one if isinstance(one, MatchError) else self._order(one, known) for one in wanted]
        able = [order for order in orders if isinstance(order, Order)]
        with self.tracing.span(
            f"publish {queue}", kind=PRODUCER, about={"messaging.batch.message_count": len(able)}
        ) as s:
            entered = iter(self._enter(able, queue, Origin(request_id=request_id, traceparent=s.traceparent)))
            outcomes = [next(entered) if isinstance(order, Order) else order for order in orders]
            self._tidy(orders, outcomes)
            self.publisher.send(_unsent(orders, outcomes), queue=queue)
        return [
            IdempotencyConflict() if isinstance(one, Entry) and one.entered is Entered.OTHER else one
            for one in outcomes
        ]

    def _order(self, wanted: Wanted, known: Mapping[str, Known]) -> Order | Entry | MatchError:
        """Return what is to be entered, or what was entered before under the same id."""
        source = wanted.source
        mark = fingerprint(wanted) if wanted.task_id else ""
        if wanted.task_id in known:
            return known[wanted.task_id].entry(mark)
        try:
            host = self._vet(source)
            self.admission.check()
            claim = None if source.data is None else self.uploads.put(source.data)
        except MatchError as error:
            return error
        job = AddJob(filepath=wanted.filepath, url=source.url, upload=claim, metadata=wanted.metadata)
        return Order(job=job, host=host, callback=wanted.callback, task_id=wanted.task_id, fingerprint=mark)

    def _enter(self, orders: Sequence[Order], queue: str, origin: Origin) -> list[Entry | MatchError]:
        """Write the tasks into the ledger, the first ones alone where there is no room for all."""
        if not orders:
            return []
        try:
            return [*self.ledger.enter(orders, queue=queue, origin=origin)]
        except Overloaded as error:
            half = len(orders) // 2
            first = self._enter(orders[:half], queue, origin)
            if half and isinstance(first[-1], Entry):
                return [*first, *self._enter(orders[half:], queue, origin)]
            return [*first, *[error] * (len(orders) - half)]
        except MatchError as error:
            return [error for _ in orders]

    def _tidy(self, orders: Sequence[Order | Entry | MatchError], outcomes: Sequence[Entry | MatchError]) -> None:
        """Let the uploads of accepted work stay, and forget the others."""
        uploads = {
            order.job.upload: (order, outcome)
            for order, outcome in zip(orders, outcomes, strict=True)
            if isinstance(order, Order) and order.job.upload is not None
        }
        if not uploads:
            return
        # Should anything fail: what is accepted has a day to be worked on, and what is not goes by itself in the day.
        with suppress(MatchError):
            # A task that was there may be this very order's: the ledger was asked twice, and answered once.
            replays = [order.task_id for order, outcome in uploads.values() if _is_replay(outcome)]
            used = set(self.ledger.uploads_of(replays).values()) if replays else set()
            if kept := [upload for upload, (_, outcome) in uploads.items() if _is_new(outcome) or upload in used]:
                self.uploads.keep(*kept)
            dropped = [upload for upload, (order, outcome) in uploads.items() if _is_left_over(order, outcome)]
            if left := [upload for upload in dropped if upload not in used]:
                self.uploads.drop(left)

    def _vet(self, source: Source) -> str:
        """Return the host that the picture is to be downloaded from, empty for an upload."""
        if source.data is not None:
            with naming(source.field):
                check_format(source.data)
        return vet(self.fetcher, source)


def fingerprint(wanted: Wanted) -> str:
    """Return what tells an order from others: the same for the same picture, name, metadata, form and callback."""
    data = wanted.source.data
    digest = None if data is None else hashlib.sha256(data).hexdigest()
    told = [wanted.filepath, wanted.source.url, digest, wanted.metadata, wanted.form, wanted.callback]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _is_new(outcome: Entry | MatchError) -> bool:
    return isinstance(outcome, Entry) and outcome.entered is Entered.NEW


def _is_replay(outcome: Entry | MatchError) -> bool:
    return isinstance(outcome, Entry) and outcome.is_replay


def _is_left_over(order: Order, outcome: Entry | MatchError) -> bool:
    """Say whether the order's upload has no task; one that the ledger may have taken unheard is left to its day."""
    return not _is_new(outcome) and not (order.task_id and isinstance(outcome, QueueUnavailable))


def _unsent(orders: Sequence[Order | Entry | MatchError], outcomes: Sequence[Entry | MatchError]) -> list[Task]:
    """Return the tasks whose message is to be sent; of one that was just written by another it may come twice."""
    return [
        outcome.task
        for order, outcome in zip(orders, outcomes, strict=True)
        if isinstance(order, Order)
        and isinstance(outcome, Entry)
        and outcome.entered is not Entered.OTHER
        and outcome.task.state is State.PENDING
    ]
