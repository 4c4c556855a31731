"""One task from start to finish: job, image, signature, record. Independent of the queue."""

import logging
from dataclasses import dataclass, field
from time import time_ns

from opentelemetry.trace import Span, StatusCode

from common.errors import FetchError, ImageError, MatchError, QueueError, StoreUnavailable
from common.images.compute import ComputeSlot
from common.images.decode import Limits, decode
from common.images.signature import sign
from common.net.fetch import Fetcher
from common.queue.decode_attempts import DecodeAttempts
from common.queue.ledger import Ledger
from common.queue.tasks import Claim, State
from common.store.base import Record
from common.telemetry.logs import bound
from common.uploads import Uploads
from workers.finishing import TaskFinisher
from workers.host_limiter import HostLimiter
from workers.instrumentation import Instrumentation
from workers.writer import Writer

log = logging.getLogger(__name__)

# An image whose decoding crashed this many workers is not decoded again.
MAX_CRASHES = 3
INTERNAL_ERROR = "internal_error"


class LostUpload(MatchError):
    """The uploaded bytes do not exist any more."""

    code = "upload_lost"


class PoisonImage(MatchError):
    """Workers crashed while they decoded this image."""

    code = "decoder_crashed"


@dataclass(slots=True)
class Decoding:
    """The task whose image this process decodes, or has decoded last; guarded by the compute slot."""

    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Runs tasks; many threads call `run` at once."""

    ledger: Ledger
    decode_attempts: DecodeAttempts
    uploads: Uploads
    fetcher: Fetcher
    slot: ComputeSlot
    limits: Limits
    writer: Writer
    finisher: TaskFinisher
    host_limiter: HostLimiter
    decoding: Decoding = field(default_factory=Decoding)
    instrumentation: Instrumentation = field(default_factory=Instrumentation)

    def run(self, task_id: str) -> None:
        """Run one task to its end: stored, or failed with an error code.

        Raises StoreUnavailable or QueueError when it cannot be finished now; the task stays open.
        """
        with bound(task_id=task_id):
            claim = self.ledger.begin(task_id)
            if claim is not None:
                with self.instrumentation.trace_task(claim) as span:
                    self._work(claim, span)

    def _work(self, claim: Claim, span: Span) -> None:
        try:
            result = self.writer.write(claim, self._record(claim))
            self._report(span, result.state, result.reason)
        except (ImageError, FetchError, LostUpload, PoisonImage) as error:
            self._fail(claim, error.code, str(error))
            self._report(span, State.FAILED, error.code, str(error))
        except (StoreUnavailable, QueueError):
            self.ledger.make_pending(claim.task_id)
            raise
        except Exception:
            # A bug: the client gets an internal error, and the log has the traceback. A retry would fail again.
            log.exception("unexpected error in task %s", claim.task_id)
            self._fail(claim, INTERNAL_ERROR, "internal error")
            self._report(span, State.FAILED, INTERNAL_ERROR)

    def _fail(self, claim: Claim, code: str, error: str) -> None:
        self.finisher.finish([claim.result(State.FAILED, code=code, error=error)])

    def _report(self, span: Span, state: State, code: str = "", error: str = "") -> None:
        """Report the final state to metrics, span and log; only failures are logged at info level."""
        self.instrumentation.count_finished(state, code)
        if state is State.FAILED:
            span.set_status(StatusCode.ERROR, code)
            log.info("failed: %s", error or code, extra={"outcome": state.value, "code": code})
        else:
            log.debug("%s", state, extra={"outcome": state.value})

    def _record(self, claim: Claim) -> Record:
        data = self._bytes(claim)
        with self.slot.hold():
            # This process decoded the last image completely. Its attempts are cleared now: its record may wait long to
            # be written, and a crash during that time has another cause.
            attempts = self.decode_attempts.start(claim.task_id, decoded=self.decoding.task_id)
            if attempts > MAX_CRASHES:
                message = f"{MAX_CRASHES} workers crashed while they decoded this image"
                raise PoisonImage(message)
            self.decoding.task_id = claim.task_id
            with self.slot.alarm(), self.instrumentation.time_decode():
                image = decode(data, self.limits)
                signature = sign(image.pixels)
        return Record(
            filepath=claim.filepath,
            seq=claim.seq,
            signatures=(signature,),
            metadata=claim.metadata,
            added=time_ns() // 1_000_000,
            width=image.width,
            height=image.height,
        )

    def _bytes(self, claim: Claim) -> bytes:
        if claim.url is not None:
            with self.host_limiter.slot(claim), self.instrumentation.time_download():
                return self.fetcher.fetch(claim.url)
        data = self.uploads.get(claim.upload_id) if claim.upload_id else None
        if data is None:
            raise LostUpload("the uploaded bytes do not exist any more")
        return data
