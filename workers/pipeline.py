"""One task, start to end: job, image, signature, record; knows no queue."""

import logging
from dataclasses import dataclass, field
from time import time_ns

from common.errors import FetchError, ImageError, MatchError, QueueError, StoreError, StoreUnavailable
from common.images.compute import ComputeSlot
from common.images.decode import Limits, decode
from common.images.signature import sign
from common.net.fetch import Fetcher
from common.queue.ledger import Ledger
from common.queue.tasks import Claim, State
from common.store.base import Record
from common.telemetry.logs import bound
from common.telemetry.tracing import Span
from common.uploads import Uploads
from workers.hosts import Hosts
from workers.settlement import End, Settlement
from workers.signals import Signals
from workers.writer import Writer

log = logging.getLogger(__name__)

# A picture in whose decoding a worker died this often is never decoded again.
MOST_DEATHS = 3
INTERNAL_ERROR = "internal_error"


class LostUpload(MatchError):
    """The uploaded bytes are gone: nothing is left to store."""

    code = "upload_lost"


class DeadlyImage(MatchError):
    """Workers died while they decoded this picture."""

    code = "image_ends_worker"


@dataclass(slots=True)
class Decoding:
    """The task whose picture is in the decoder, or was the last there; for whoever holds the slot."""

    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Does the work of tasks; `run` is called from many threads at once."""

    ledger: Ledger
    uploads: Uploads
    fetcher: Fetcher
    slot: ComputeSlot
    limits: Limits
    writer: Writer
    settlement: Settlement
    hosts: Hosts
    decoding: Decoding = field(default_factory=Decoding)
    signals: Signals = field(default_factory=Signals)

    def run(self, task_id: str) -> None:
        """Do the work of one task and close it, stored or failed with its reason.

        Raises StoreUnavailable or QueueError when it cannot be finished now: the task stays open.
        """
        with bound(task_id=task_id):
            claim = self.ledger.begin(task_id)
            if claim is not None:
                with self.signals.task(claim) as span:
                    self._work(claim, span)

    def _work(self, claim: Claim, span: Span) -> None:
        try:
            state = self.writer.write(claim, self._record(claim))
            self._tell(span, state, StoreError.code if state is State.FAILED else "")
        except (ImageError, FetchError, LostUpload, DeadlyImage) as error:
            self._fail(claim, error.code, str(error))
            self._tell(span, State.FAILED, error.code, str(error))
        except (StoreUnavailable, QueueError):
            self.ledger.give_back(claim.task_id)
            raise
        except Exception:
            # A fault of ours: its sender reads that it failed, the log says why, and the message does not come back.
            log.exception("task %s broke the pipeline", claim.task_id)
            self._fail(claim, INTERNAL_ERROR, "an internal error ended this task")
            self._tell(span, State.FAILED, INTERNAL_ERROR)

    def _fail(self, claim: Claim, code: str, error: str) -> None:
        self.settlement.settle([End(claim, State.FAILED, code=code, error=error)])

    def _tell(self, span: Span, state: State, code: str = "", error: str = "") -> None:
        """Tell how the task ended: of failures in a line each, of the rest where somebody looks closely."""
        self.signals.ended(state, code)
        if state is State.FAILED:
            span.fail(code)
            log.info("failed: %s", error or code, extra={"outcome": state.value, "code": code})
        else:
            log.debug("%s", state, extra={"outcome": state.value})

    def _record(self, claim: Claim) -> Record:
        data = self._bytes(claim)
        with self.slot.hold():
            # The picture before has left the decoder, which is said at once: until it is written it may wait long, and
            # a death meanwhile is not its fault.
            deaths = self.ledger.risk(claim.task_id, after=self.decoding.task_id)
            if deaths > MOST_DEATHS:
                message = f"{MOST_DEATHS} workers ended while they decoded this picture"
                raise DeadlyImage(message)
            self.decoding.task_id = claim.task_id
            with self.slot.alarm(), self.signals.decode():
                picture = decode(data, self.limits)
                signature = sign(picture.pixels)
        return Record(
            filepath=claim.job.filepath,
            seq=claim.seq,
            signatures=(signature,),
            metadata=claim.job.metadata,
            added=time_ns() // 1_000_000,
            width=picture.width,
            height=picture.height,
        )

    def _bytes(self, claim: Claim) -> bytes:
        job = claim.job
        if job.url is not None:
            with self.hosts.place_of(claim), self.signals.download():
                return self.fetcher.fetch(job.url)
        data = self.uploads.get(job.upload) if job.upload else None
        if data is None:
            raise LostUpload("the uploaded bytes are gone")
        return data
