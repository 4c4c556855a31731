"""Add images: from the items of a request to tasks that no crash loses."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from api.collection_errors import QuotaExceeded
from api.sources import naming, validate_url
from api.use_cases.idempotency import IdempotencyConflict, IdempotencyKey
from api.use_cases.manage_collections import ManageCollections
from api.use_cases.request_batches import RequestBatches
from common.byte_budget import ByteBudget, Reservation
from common.collection_names import DEFAULT_COLLECTION
from common.errors import MatchError, Overloaded, QueueUnavailable
from common.images.formats import check_format
from common.net.fetch import Fetcher
from common.queue.admission import Admission
from common.queue.batches import BatchCancelled, OpenBatch
from common.queue.items import AddItem, EnqueueResult, EnqueueStatus, NotEnqueued
from common.queue.jobs import RequestContext
from common.queue.ledger import Ledger
from common.queue.publisher import Publisher
from common.queue.tasks import State, Task
from common.redis.client import RETRY_AFTER_S
from common.telemetry import tracing
from common.uploads import Uploads

tracer = trace.get_tracer(__name__)


class HostUnavailable(Overloaded):
    """Too many tasks wait for the host of an image."""

    code = "host_unavailable"


@dataclass(frozen=True, slots=True)
class AddImages:
    """Accepts images: keeps uploads, writes tasks to the ledger, publishes their messages, in this order.

    A crash after any step loses nothing that was accepted: the sweeper publishes a task whose message was not sent, and
    an upload without a task expires.
    """

    admission: Admission
    ledger: Ledger
    uploads: Uploads
    publisher: Publisher
    collections: ManageCollections
    fetcher: Fetcher
    budget: ByteBudget

    def enqueue(  # noqa: PLR0913 - the options are keyword arguments
        self,
        items: Iterable[AddItem],
        context: RequestContext,
        *,
        queue: str,
        key: IdempotencyKey,
        numbers: Iterable[int],
        batches: RequestBatches | None = None,
    ) -> list[AddItem]:
        """Return the items in order, each with a `result` or an `error`; one bad item does not fail the others.

        The items are consumed one at a time, so that the bytes of only one upload are in memory. An item with an error
        keeps it. `numbers` are the items' numbers, known before the items are: with an idempotency key, an item whose
        task exists needs no capacity. `batches` are those of a request with many images.

        An item that can never be stored has an InputError or an ImageError. One whose id belongs to a different item
        has an IdempotencyConflict, one beyond the quota of its collection QuotaExceeded. BatchConflict or
        BatchCancelled: the batch of its collection does not accept it. Overloaded, HostUnavailable or
        QueueUnavailable: the item cannot be accepted now.
        """
        task_ids = key.task_ids(numbers)
        try:
            existing = self.ledger.existing(task_ids) if task_ids else {}
        except MatchError as error:
            return [_discarded(item, error) for item in items]
        rows = [self._prepare(item, context, key, existing) for item in items]
        if new := [row for row in rows if row.error is None and row.result is None]:
            attributes = {"messaging.batch.message_count": len(new)}
            with tracing.active(tracer.start_span(f"publish {queue}", kind=SpanKind.PRODUCER, attributes=attributes)):
                self._write(new, replace(context, traceparent=tracing.inject()), queue, batches)
                self._finish_uploads(new)
                for own, tasks in _pending_by_queue(new).items():
                    self.publisher.send(tasks, queue=own)
        return rows

    def _prepare(
        self, item: AddItem, context: RequestContext, key: IdempotencyKey, existing: Mapping[str, EnqueueResult]
    ) -> AddItem:
        """Validate the item and keep its upload, or find the task that it created before."""
        if item.error is not None:
            return item
        with self.budget.reservation() as reservation:
            return self._prepare_in(reservation, item, context, key, existing)

    def _prepare_in(
        self,
        reservation: Reservation,
        item: AddItem,
        context: RequestContext,
        key: IdempotencyKey,
        existing: Mapping[str, EnqueueResult],
    ) -> AddItem:
        item.task_id = key.task_id(item.number)
        try:
            if item.file is not None:
                reservation.resize(item.file.size)
                item.data = item.file.read()
            if item.task_id:
                item.fingerprint = fingerprint(item, context)
            if item.task_id in existing:
                return _with_result(item, existing[item.task_id].compared(item.fingerprint))
            item.host = self._host(item)
            self.admission.check()
            if item.data is not None:
                item.upload_id = self.uploads.put(item.data)
        except MatchError as error:
            _failed(item, error)
        finally:
            item.data = None
        return item

    def _host(self, item: AddItem) -> str:
        """Return the host that the image is downloaded from, empty for an upload."""
        if item.url is not None:
            return validate_url(self.fetcher, item.url, parameter=item.parameter).host
        with naming(item.parameter):
            check_format(item.data or b"")
        return ""

    def _write(
        self, new: Sequence[AddItem], context: RequestContext, queue: str, batches: RequestBatches | None
    ) -> None:
        """Write the tasks to the ledger, those of a collection in order, until `max_open` tasks are open."""
        by_collection: defaultdict[str, list[AddItem]] = defaultdict(list)
        for item in new:
            by_collection[item.collection].append(item)
        for collection, items in by_collection.items():
            self._write_to(collection, items, context, queue, batches)

    def _write_to(
        self,
        collection: str,
        items: Sequence[AddItem],
        context: RequestContext,
        queue: str,
        batches: RequestBatches | None,
    ) -> None:
        try:
            left = self.collections.prepare_add(collection)
            batch = None if batches is None else batches.of(collection)
            over_quota = self._enqueue(items, context, queue, batch, max_open=left)
            if over_quota:
                # An image that replaces another one needs no space.
                stored = self.collections.stored(collection, [item.filepath for item in over_quota])
                self._enqueue([item for item in over_quota if item.filepath in stored], context, queue, batch)
        except MatchError as error:
            for item in items:
                if item.result is None and item.error is None:
                    _failed(item, error)
            return
        for item in over_quota:
            if item.result is None and item.error is None:
                _failed(item, QuotaExceeded())

    def _enqueue(
        self,
        items: Sequence[AddItem],
        context: RequestContext,
        queue: str,
        batch: OpenBatch | None,
        *,
        max_open: int | None = None,
    ) -> list[AddItem]:
        """Write tasks of one collection to the ledger, and return the items beyond the quota."""
        if not items:
            return []
        collection = items[0].collection
        results = self.ledger.enqueue(
            items, queue=queue, context=context, collection=collection, max_open=max_open, batch=batch
        )
        over_quota = []
        for item, result in zip(items, results, strict=True):
            if result is NotEnqueued.QUOTA:
                over_quota.append(item)
            elif result is NotEnqueued.HOST:
                _failed(item, self._host_unavailable(item.host))
            elif result is NotEnqueued.CANCELLED:
                _failed(item, BatchCancelled())
            elif isinstance(result, NotEnqueued):
                _failed(item, Overloaded("too many tasks are waiting", retry_after=RETRY_AFTER_S))
            else:
                _with_result(item, result)
        return over_quota

    def _host_unavailable(self, host: str) -> HostUnavailable:
        retry_after_s = max(RETRY_AFTER_S, ceil(self.ledger.paused_for_s(host)))
        return HostUnavailable(f"{host} answers too slowly: too many images wait for it", retry_after=retry_after_s)

    def _finish_uploads(self, new: Sequence[AddItem]) -> None:
        """Keep the uploads of accepted items until their tasks end, and drop the others.

        A failure here loses nothing: an upload expires after a day, which is enough time for its task.
        """
        rows = {item.upload_id: item for item in new if item.upload_id is not None}
        if not rows:
            return
        with suppress(MatchError):
            # The existing task may be our own: redis-py may have retried a call whose first reply was lost.
            replayed = [item.task_id for item in rows.values() if item.is_replay]
            used = set(self.ledger.uploads_of(replayed).values()) if replayed else set()
            kept = [upload_id for upload_id, item in rows.items() if _is_created(item) or upload_id in used]
            if kept:
                self.uploads.keep(*kept)
            dropped = [upload_id for upload_id, item in rows.items() if upload_id not in kept and _has_no_task(item)]
            if dropped:
                self.uploads.drop(dropped)


def fingerprint(item: AddItem, context: RequestContext) -> str:
    """Return a digest that is equal for equal image, names, metadata, form of the request and callback URL.

    Ledgers hold these digests for a day: a change of the input makes every replayed request a conflict.
    """
    digest = None if item.data is None else hashlib.sha256(item.data).hexdigest()
    values = [item.filepath, item.url, digest, item.metadata, context.form, context.callback_url]
    if item.collection != DEFAULT_COLLECTION:
        values.append(item.collection)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _discarded(item: AddItem, error: MatchError) -> AddItem:
    """Return the item without its bytes, with this error unless it has one."""
    item.data = None
    return _failed(item, item.error or error)


def _failed(item: AddItem, error: MatchError) -> AddItem:
    item.error = error
    return item


def _with_result(item: AddItem, result: EnqueueResult) -> AddItem:
    item.result = result
    return _failed(item, IdempotencyConflict()) if result.status is EnqueueStatus.CONFLICT else item


def _pending_by_queue(items: Iterable[AddItem]) -> dict[str, list[Task]]:
    """Return the tasks to send, by queue. An existing task may be sent twice, which changes nothing."""
    by_queue: defaultdict[str, list[Task]] = defaultdict(list)
    for item in items:
        if item.error is None and item.result is not None and item.task.state is State.PENDING:
            by_queue[item.result.queue].append(item.task)
    return dict(by_queue)


def _is_created(item: AddItem) -> bool:
    return item.result is not None and item.result.status is EnqueueStatus.CREATED


def _has_no_task(item: AddItem) -> bool:
    """Return whether no task can need the item's upload.

    Without a reply from Redis the task of an item with a known id may exist; its upload is kept until it expires.
    """
    return not _is_created(item) and not (item.task_id and isinstance(item.error, QueueUnavailable))
