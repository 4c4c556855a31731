"""From a picture in a request to a task that will not be lost."""

from contextlib import suppress
from dataclasses import dataclass

from api.pictures import vet
from api.publisher import Publisher
from api.sources import Source, naming
from common.admission import Admission
from common.errors import MatchError
from common.fetch import Fetcher
from common.images import check_format
from common.jobs import SINGLE_QUEUE, AddJob, Metadata
from common.ledger import Ledger, Task
from common.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Intake:
    """Accepts adds: upload, ledger, queue, in this order."""

    admission: Admission
    ledger: Ledger
    uploads: Uploads
    publisher: Publisher
    fetcher: Fetcher

    def accept(self, filepath: str, source: Source, metadata: Metadata | None) -> Task:
        """Return the task, written where it survives a crash of this process.

        Raises InputError or ImageError for what can never be stored, Overloaded or QueueUnavailable when it cannot be
        accepted now; then nothing is left behind.
        """
        self._vet(source)
        self.admission.check()
        if source.data is None:
            return self._send(AddJob(filepath=filepath, url=source.url, metadata=metadata))
        claim = self.uploads.put(source.data)
        try:
            task = self._send(AddJob(filepath=filepath, upload=claim, metadata=metadata))
        except MatchError:
            # Should this fail too, the bytes go by themselves within the day.
            with suppress(MatchError):
                self.uploads.drop([claim])
            raise
        return task

    def _send(self, job: AddJob) -> Task:
        [task] = self.ledger.accept([job], queue=SINGLE_QUEUE)
        # From here on the task is accepted, whatever fails: the sweeper sends what was not sent.
        with suppress(MatchError):
            if job.upload:
                self.uploads.keep(job.upload)
        self.publisher.send([task], queue=SINGLE_QUEUE)
        return task

    def _vet(self, source: Source) -> None:
        with naming(source.field):
            if source.data is not None:
                check_format(source.data)
        vet(self.fetcher, source)
