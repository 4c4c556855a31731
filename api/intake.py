"""From pictures in a request to tasks that will not be lost."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from api.pictures import vet
from api.publisher import Publisher
from api.sources import Source, naming
from common.admission import Admission
from common.errors import MatchError, Overloaded
from common.fetch import Fetcher
from common.images import check_format
from common.jobs import SINGLE_QUEUE, AddJob, Metadata, Origin
from common.ledger import Ledger, Task
from common.tracing import OFF, PRODUCER, Tracing
from common.uploads import Uploads


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """A picture that somebody wants to be stored."""

    filepath: str
    source: Source
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True)
class Intake:
    """Accepts adds: upload, ledger, queue, in this order."""

    admission: Admission
    ledger: Ledger
    uploads: Uploads
    publisher: Publisher
    fetcher: Fetcher
    tracing: Tracing = OFF

    def accept(self, wanted: Wanted, *, request_id: str = "") -> Task:
        """Return the task, written where it survives a crash of this process.

        Raises InputError or ImageError for what can never be stored, Overloaded or QueueUnavailable when it cannot be
        accepted now; then nothing is left behind.
        """
        [outcome] = self.accept_all([wanted], queue=SINGLE_QUEUE, request_id=request_id)
        if isinstance(outcome, MatchError):
            raise outcome
        return outcome

    def accept_all(
        self, wanted: Iterable[Wanted | MatchError], *, queue: str, request_id: str = ""
    ) -> list[Task | MatchError]:
        """Return what became of each, in order: its task, or the error that `accept` would raise.

        `request_id` names the request that brought them. What comes as an error stays one. Uploads are taken one after
        another, so that only one is held at a time; the ledger takes all at once.
        """
        jobs = [one if isinstance(one, MatchError) else self._job(one) for one in wanted]
        able = [job for job in jobs if isinstance(job, AddJob)]
        with self.tracing.span(
            f"publish {queue}", kind=PRODUCER, about={"messaging.batch.message_count": len(able)}
        ) as s:
            entered = iter(self._enter(able, queue, Origin(request_id=request_id, traceparent=s.traceparent)))
            outcomes = [next(entered) if isinstance(job, AddJob) else job for job in jobs]
            self._tidy(jobs, outcomes)
            self.publisher.send([task for task in outcomes if isinstance(task, Task)], queue=queue)
        return outcomes

    def _job(self, wanted: Wanted) -> AddJob | MatchError:
        source = wanted.source
        try:
            self._vet(source)
            self.admission.check()
            claim = None if source.data is None else self.uploads.put(source.data)
        except MatchError as error:
            return error
        return AddJob(filepath=wanted.filepath, url=source.url, upload=claim, metadata=wanted.metadata)

    def _enter(self, jobs: Sequence[AddJob], queue: str, origin: Origin) -> list[Task | MatchError]:
        """Write the tasks into the ledger, the first ones alone where there is no room for all."""
        if not jobs:
            return []
        try:
            return [*self.ledger.accept(jobs, queue=queue, origin=origin)]
        except Overloaded as error:
            half = len(jobs) // 2
            first = self._enter(jobs[:half], queue, origin)
            if half and isinstance(first[-1], Task):
                return [*first, *self._enter(jobs[half:], queue, origin)]
            return [*first, *[error] * (len(jobs) - half)]
        except MatchError as error:
            return [error for _ in jobs]

    def _tidy(self, jobs: Sequence[AddJob | MatchError], outcomes: Sequence[Task | MatchError]) -> None:
        """Let the uploads of accepted work stay, and forget the others."""
        claims = [
            (job.upload, isinstance(outcome, Task))
            for job, outcome in zip(jobs, outcomes, strict=True)
            if isinstance(job, AddJob) and job.upload is not None
        ]
        kept, dropped = [claim for claim, stays in claims if stays], [claim for claim, stays in claims if not stays]
        # Should either fail: what is accepted has a day to be worked on, and what is not goes by itself within the day.
        if kept:
            with suppress(MatchError):
                self.uploads.keep(*kept)
        if dropped:
            with suppress(MatchError):
                self.uploads.drop(dropped)

    def _vet(self, source: Source) -> None:
        with naming(source.field):
            if source.data is not None:
                check_format(source.data)
        vet(self.fetcher, source)
