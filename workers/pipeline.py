"""One task from start to finish: job, image, signature, record. Independent of the queue."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time_ns
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.trace import Span, StatusCode

from common.byte_budget import ByteBudget, Reservation
from common.decoding.pool import Decoder
from common.decoding.protocol import Output, SignedImage
from common.errors import FetchError, ImageError, MatchError, QueueError, StoreError, StoreUnavailable
from common.net.connector import TransientFetchError
from common.net.fetch import Fetcher
from common.net.source_url import source_url
from common.queue.ledger import Ledger
from common.queue.tasks import Action, Claim, State, TaskResult
from common.store.base import Record
from common.telemetry.logs import bound
from common.uploads import Uploads
from workers.deletion import Deletion, is_deleted
from workers.finishing import TaskFinisher
from workers.host_limiter import HostLimiter, fault_of
from workers.instrumentation import Instrumentation
from workers.writer import Writer

log = logging.getLogger(__name__)

# A task that this many workers began and did not end is not begun again: it may be the cause of their deaths.
MAX_UNFINISHED = 5
INTERNAL_ERROR = "internal_error"


class LostUpload(MatchError):
    """The uploaded bytes do not exist any more."""

    code = "upload_lost"


class WorkerLost(MatchError):
    """Workers died, each while it ran this task."""

    code = "worker_lost"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Runs tasks; many threads call `run` at once.

    `keep_source_url`: records have the source URL of their image. `local_features`: they have its local features.
    `thumbnails`: a thumbnail of it is kept. `check_pause` raises QueuePaused while no task may begin.
    """

    ledger: Ledger
    uploads: Uploads
    fetcher: Fetcher
    budget: ByteBudget
    decoder: Decoder
    writer: Writer
    finisher: TaskFinisher
    host_limiter: HostLimiter
    deletion: Deletion
    max_image_bytes: int
    keep_source_url: bool = True
    local_features: bool = True
    thumbnails: bool = False
    instrumentation: Instrumentation = field(default_factory=Instrumentation)
    check_pause: Callable[[], None] = lambda: None

    def run(self, task_id: str) -> None:
        """Run one task to its end: stored, or failed with an error code; or until its next try.

        Raises StoreUnavailable or QueueError when it cannot be finished now, QueuePaused while the queue is paused; the
        task stays open.
        """
        self.check_pause()
        with bound(task_id=task_id):
            claim = self.ledger.begin(task_id)
            if claim is not None:
                with self.instrumentation.trace_task(claim) as span:
                    self._work(claim, span)

    def _work(self, claim: Claim, span: Span) -> None:
        try:
            result = self._run(claim)
            self._report(claim, span, result.state, result.reason)
        except TransientFetchError as error:
            self._defer(claim, error, span)
        except (ImageError, FetchError, LostUpload, WorkerLost) as error:
            self._fail(claim, error.code, str(error))
            self._report(claim, span, State.FAILED, error.code, str(error))
        except (StoreUnavailable, QueueError):
            self.ledger.make_pending(claim.task_id)
            raise
        except StoreError as error:
            self._fail(claim, StoreError.code, str(error))
            self._report(claim, span, State.FAILED, StoreError.code, str(error))
        except Exception:
            # A bug: the client gets an internal error, and the log has the traceback. A retry would fail again.
            log.exception("unexpected error in task %s", claim.task_id)
            self._fail(claim, INTERNAL_ERROR, "internal error")
            self._report(claim, span, State.FAILED, INTERNAL_ERROR)

    def _run(self, claim: Claim) -> TaskResult:
        if claim.is_batch_cancelled:
            self.deletion.cancel(claim)
            result = claim.result(State.CANCELLED)
        elif claim.is_collection_deleted:
            result = claim.result(State.SUPERSEDED)
        elif is_deleted(claim):
            self.host_limiter.skip(claim)
            result = claim.result(State.SUPERSEDED)
        elif claim.action is Action.ADD:
            return self.writer.write(claim, *self._record(claim))
        else:
            self.deletion.run(claim)
            result = claim.result(State.SUCCEEDED)
        self.finisher.finish([result])
        return result

    def _defer(self, claim: Claim, error: TransientFetchError, span: Span) -> None:
        """Let the task wait for its next try, or fail it when it was tried for long enough."""
        if self.ledger.defer(claim.task_id, fault_of(error)):
            self.instrumentation.count_deferred(error.code)
            span.set_attribute("match.deferred", error.code)
            log.info("deferred: %s", error, extra={"outcome": "deferred", "code": error.code})
        else:
            self._fail(claim, error.code, str(error))
            self._report(claim, span, State.FAILED, error.code, str(error))

    def _fail(self, claim: Claim, code: str, error: str) -> None:
        self.finisher.finish([claim.result(State.FAILED, code=code, error=error)])

    def _report(self, claim: Claim, span: Span, state: State, code: str = "", error: str = "") -> None:
        """Report the final state to metrics, span and log; only failures are logged at info level."""
        self.instrumentation.count_finished(state, code)
        if state is State.FAILED:
            span.set_status(StatusCode.ERROR, code)
            log.info("failed: %s: %s", _image(claim), error or code, extra={"outcome": state.value, "code": code})
        else:
            log.debug("%s", state, extra={"outcome": state.value})

    def _record(self, claim: Claim) -> tuple[Record, bytes | None]:
        """Return the record, and the thumbnail where one is kept."""
        if claim.unfinished > MAX_UNFINISHED:
            self.host_limiter.skip(claim)
            message = f"{MAX_UNFINISHED} workers were lost while they ran this task"
            raise WorkerLost(message)
        if claim.given_up is not None:
            code, error = claim.given_up
            raise FetchError(error, code=code)
        image, sha256 = self._decode(claim)
        record = Record(
            collection=claim.collection,
            filepath=claim.filepath,
            seq=claim.seq,
            signatures=image.signatures,
            metadata=claim.metadata,
            added=time_ns() // 1_000_000,
            width=image.width,
            height=image.height,
            sha256=sha256,
            features=image.stored_features,
            url=source_url(claim.url) if claim.url and self.keep_source_url else None,
        )
        return record, image.thumbnail

    def _decode(self, claim: Claim) -> tuple[SignedImage, bytes]:
        """Decode the image, and return the SHA-256 of its bytes too. They are in memory only meanwhile."""
        outputs = Output.SIGNATURES | (Output.STORED_FEATURES if self.local_features else Output(0))
        outputs |= Output.THUMBNAIL if self.thumbnails else Output(0)
        with self.budget.reservation() as reservation:
            data = self._bytes(claim, reservation)
            with self.instrumentation.time_decode():
                return self.decoder.decode(data, outputs=outputs), hashlib.sha256(data).digest()

    def _bytes(self, claim: Claim, reservation: Reservation) -> bytes:
        if claim.url is not None:
            with self.host_limiter.slot(claim), self.instrumentation.time_download():
                return self.fetcher.fetch(claim.url, reserve=reservation.resize)
        # The size of an upload is known only when it has been read.
        reservation.resize(self.max_image_bytes)
        data = self.uploads.get(claim.upload_id) if claim.upload_id else None
        if data is None:
            raise LostUpload("the uploaded bytes do not exist any more")
        reservation.resize(len(data))
        return data


def _image(claim: Claim) -> str:
    """Return the filepath and the URL, without its query: both are what an operator looks for in the log."""
    if claim.url is None:
        return claim.filepath
    url = urlsplit(source_url(claim.url) or "")
    host = urlsplit(claim.url).hostname
    return f"{claim.filepath} ({urlunsplit((url.scheme, url.netloc, url.path, '', '')) or host})"
