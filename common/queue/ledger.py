"""The ledger: the state of every accepted task, in Redis.

The queue may lose a message, for instance if a worker dies between taking it and recording it as unacknowledged. The
ledger loses nothing: a task is written before its message is sent, and closed after the store has confirmed the record.
The sweeper (`workers.sweeper`) enqueues tasks again that stay open for too long.

The script that ends a task also adds its callback to the outbox (`common.queue.callbacks`). `common.queue.keys` has the
names of all keys.
"""

import json
import secrets
from collections.abc import Sequence
from typing import Any, cast

from redis import Redis

from common.collection_names import DEFAULT_COLLECTION
from common.config import MIB
from common.queue import keys
from common.queue.batches import LEASE_S, RATE_WINDOW_MS, OpenBatch
from common.queue.callbacks import DELIVERY_SIZE, ENDED_FIELDS, LINGER_BATCH_MS, LINGER_MS, Callback
from common.queue.host_limits import LONGEST_RETRY_AFTER_MS, NO_LIMIT, Fault, HostLimit, jitter
from common.queue.items import AddItem, EnqueueResult, EnqueueStatus, NotEnqueued, job_of
from common.queue.jobs import BATCH_QUEUE, BATCH_QUEUES, NO_REQUEST, RequestContext, first_batch_queue, image_selection
from common.queue.scripts import script
from common.queue.tasks import (
    FIELDS,
    Action,
    Claim,
    QueuedTask,
    RetryRejected,
    State,
    Task,
    TaskResult,
    task_from,
)
from common.redis.client import redis_errors
from common.redis.clock import milliseconds

# One host may hold this share of the backlog.
MAX_DEFERRED_SHARE = 10
# Waits between the tries of a task. They double from the first to the longest.
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 300.0
# Minimum retention of a task whose id is derived from an idempotency key, from its acceptance.
IDEMPOTENCY_KEEP_S = 86_400

REJECTION_OF = {
    "unknown": RetryRejected.UNKNOWN,
    "late": RetryRejected.TOO_LATE,
    "emptied": RetryRejected.UPLOAD_LOST,
    "quota": RetryRejected.QUOTA,
    "void": RetryRejected.BATCH_CANCELLED,
}

# Outcomes of the script `enqueue`; any other outcome is the fingerprint of an existing task.
CREATED = b""
NOT_ENQUEUED = {reason.value.encode(): reason for reason in NotEnqueued}


class Ledger:
    """The accepted tasks and their states.

    Every method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(  # noqa: PLR0913 - the limits are keyword arguments
        self,
        redis: Redis,
        *,
        max_open: int,
        finished_keep_s: int,
        failed_keep_s: int,
        host_limit: HostLimit = NO_LIMIT,
        max_callbacks_bytes: int = 256 * MIB,
    ) -> None:
        self._redis = redis
        callbacks: dict[str, str | float] = {
            "max_callback_bytes": max_callbacks_bytes,
            "delivery_size": DELIVERY_SIZE,
            "linger_ms": LINGER_MS,
            "batch_linger_ms": LINGER_BATCH_MS,
            "batch_queue": BATCH_QUEUE,
            "ended_fields": " ".join(ENDED_FIELDS),
            "rate_window_ms": RATE_WINDOW_MS,
            "finished_keep_s": finished_keep_s,
            "failed_keep_s": failed_keep_s,
        }
        self._enqueue = script(
            redis,
            "enqueue",
            max_open=max_open,
            max_deferred=max(1, max_open // MAX_DEFERRED_SHARE),
            batch_queue=BATCH_QUEUE,
            batch_queue_count=len(BATCH_QUEUES),
            remember_ms=IDEMPOTENCY_KEEP_S * 1000,
            batch_lease_ms=LEASE_S * 1000,
        )
        self._begin = script(
            redis,
            "begin",
            max_slots=host_limit.slots,
            slot_lease_ms=host_limit.lease_ms,
            retry_for_ms=host_limit.retry_for_ms,
            longest_retry_after_ms=LONGEST_RETRY_AFTER_MS,
        )
        self._defer = script(
            redis,
            "defer",
            retry_for_ms=host_limit.retry_for_ms,
            first_wait_ms=int(FIRST_WAIT_S * 1000),
            longest_wait_ms=int(LONGEST_WAIT_S * 1000),
            longest_retry_after_ms=LONGEST_RETRY_AFTER_MS,
        )
        self._make_pending = script(redis, "make_pending")
        self._finish = script(redis, "finish", **callbacks)
        self._cancel = script(redis, "cancel", **callbacks)
        self._retry = script(redis, "retry", max_age_ms=failed_keep_s * 1000)
        self._leave_batch = script(redis, "leave_batch", **callbacks)
        self._end_requests = script(redis, "end_requests", **callbacks)

    def enqueue(  # noqa: PLR0913 - the options are keyword arguments
        self,
        items: Sequence[AddItem],
        *,
        queue: str,
        context: RequestContext = NO_REQUEST,
        collection: str = DEFAULT_COLLECTION,
        max_open: int | None = None,
        action: Action = Action.ADD,
        batch: OpenBatch | None = None,
        is_counted: bool = True,
    ) -> list[EnqueueResult | NotEnqueued]:
        """Add a pending task of `collection` for each item, in order, and return the results.

        BATCH_QUEUE stands for the batch queue of the collection. `max_open` limits the open tasks of the collection.
        The result of an item whose task exists has the current state of that task. Several processes may enqueue the
        same items at once: each task is CREATED for exactly one of them.

        The tasks belong to `batch`. With `is_counted=False` the task directs the work of its batch: the batch is open
        as long as the task, whose failure it counts, and nothing else of it.
        """
        ids = [item.task_id or secrets.token_hex(16) for item in items]
        words = [
            word
            for task_id, item in zip(ids, items, strict=True)
            for word in (
                task_id,
                item.filepath,
                item.job_json(),
                item.host,
                context.callback_url,
                item.fingerprint,
            )
        ]
        with redis_errors():
            answer = self._enqueue(
                *words,
                queue=queue,
                first_batch_queue=first_batch_queue(collection),
                collection=collection,
                max_open_in_collection=-1 if max_open is None else max_open,
                action="" if action is Action.ADD else action.value,
                request_id=context.request_id,
                traceparent=context.traceparent,
                batch="" if batch is None else batch.id,
                batch_request="" if batch is None else batch.request,
                uncounted="" if is_counted else "1",
            )
        first, now, chosen, *rest = cast("list[Any]", answer)
        outcomes: list[bytes] = rest[0] if rest else [CREATED] * len(items)
        replayed = [
            task_id for task_id, outcome in zip(ids, outcomes, strict=True) if outcome not in {CREATED, *NOT_ENQUEUED}
        ]
        existing = self.existing(replayed) if replayed else {}
        results: list[EnqueueResult | NotEnqueued] = []
        for number, (task_id, item, outcome) in enumerate(zip(ids, items, outcomes, strict=True)):
            if outcome in NOT_ENQUEUED:
                results.append(NOT_ENQUEUED[outcome])
            elif task_id in existing:
                results.append(existing[task_id].compared(item.fingerprint))
            else:
                task = Task(
                    id=task_id,
                    state=State.PENDING,
                    filepath=item.filepath,
                    seq=first + number,
                    accepted=now,
                    request_id=context.request_id or None,
                    callback=Callback() if context.callback_url else None,
                    collection=collection,
                    action=action,
                    batch=None if batch is None else batch.id,
                )
                results.append(EnqueueResult(task, chosen.decode()))
        return results

    def existing(self, task_ids: Sequence[str]) -> dict[str, EnqueueResult]:
        """Return the existing ones among these tasks, without those whose id is random."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for task_id in task_ids:
                pipe.hmget(keys.TASK + task_id, *FIELDS, "queue", "fingerprint")
            rows = cast("list[list[bytes | None]]", pipe.execute())
        return {
            task_id: EnqueueResult(
                task_from(task_id, values), (queue or b"").decode(), EnqueueStatus.EXISTING, fingerprint.decode()
            )
            for task_id, (*values, queue, fingerprint) in zip(task_ids, rows, strict=True)
            if fingerprint
        }

    def begin(self, task_id: str) -> Claim | None:
        """Mark the task as running and return its claim; None if it cannot run now.

        It cannot run if it is closed or unknown. If its host's limits permit no download now, it becomes pending and
        waits without a message, until `HostSlots` returns it.
        """
        with redis_errors():
            reply = self._begin(id=task_id)
        if not reply:
            return None
        *texts, has_slot, deleted, cancelled, unfinished, deletions = cast("list[Any]", reply)
        seq, job, host, request_id, traceparent, collection, action, batch, code, error = (
            text.decode() for text in texts
        )
        return Claim(
            task_id=task_id,
            seq=int(seq),
            **job_of(job),
            host=host or None,
            has_slot=bool(has_slot),
            given_up=(code, error) if code else None,
            context=RequestContext(request_id=request_id, traceparent=traceparent),
            collection=collection,
            action=Action(action or Action.ADD),
            batch=batch or None,
            is_collection_deleted=bool(deleted),
            is_batch_cancelled=bool(cancelled),
            unfinished=unfinished,
            deletions=[image_selection(json.loads(deletion)) for deletion in deletions],
        )

    def make_pending(self, task_id: str) -> None:
        """Mark a running task as pending again, because its worker cannot finish it now."""
        with redis_errors():
            self._make_pending(id=task_id)

    def defer(self, task_id: str, fault: Fault) -> bool:
        """Let a running task wait for its next try, because its host had a temporary fault.

        Returns False if the faults of this task are not retried any longer: it must fail now. A task that is not
        running any more stays unchanged.
        """
        with redis_errors():
            due = self._defer(
                id=task_id,
                code=fault.code,
                error_text=fault.error,
                retry_after_ms=int(fault.retry_after_s * 1000),
                jitter=jitter(),
            )
        return bool(due != 0)

    def finish(self, results: Sequence[TaskResult]) -> int:
        """Close tasks and publish their ids; return the number of callbacks dropped because too many are waiting.

        A closed task keeps its first result. The only exception is a failed task that another delivery of its message
        has stored.
        """
        if not results:
            return 0
        items = [part for one in results for part in (one.task_id, one.state.value, one.code, one.error, one.warning)]
        with redis_errors():
            return int(cast("int", self._finish(*items)))

    def cancel_many(self, task_ids: Sequence[str]) -> list[State | None]:
        """Cancel the pending ones among these tasks, publish their ids, and return their states before the call.

        Of a task that is unknown or has expired, it returns None.
        """
        with redis_errors():
            states = cast("list[bytes]", self._cancel(*task_ids))
        return [State(state.decode()) if state else None for state in states]

    def leave_batch(self, batch: OpenBatch) -> int:
        """End a request that added to a batch, and the batch if it has no open task; return the dropped callbacks."""
        with redis_errors():
            return int(cast("int", self._leave_batch(batch=batch.id, request=batch.request)))

    def end_lost_requests(self, *, limit: int) -> int:
        """End up to `limit` requests that added to batches and whose process died; return their number.

        If no task at all is open, end the batches whose last tasks a worker of an earlier version has ended.
        """
        with redis_errors():
            return int(cast("int", self._end_requests(limit=limit)))

    def retry(self, task_ids: Sequence[str], *, max_open: int | None = None) -> list[QueuedTask | RetryRejected]:
        """Open failed tasks again, each with its old sequence number; `max_open` limits the open ones of a collection.

        Returns, in order, the tasks to be enqueued now, or the reason why a task was rejected.
        """
        if not task_ids:
            return []
        with redis_errors():
            reply = self._retry(*task_ids, max_open_in_collection=-1 if max_open is None else max_open)
        now, outcomes = cast("tuple[int, list[bytes]]", reply)
        return [
            QueuedTask(task_id=task_id, queue=queue.decode(), enqueued_at=now)
            if previous == State.FAILED.value.encode()
            else REJECTION_OF.get(previous.decode(), RetryRejected.NOT_FAILED)
            for task_id, previous, queue in zip(task_ids, outcomes[::2], outcomes[1::2], strict=True)
        ]

    def paused_for_s(self, host: str) -> float:
        """Return the seconds until the next download from this host may begin; 0 if it may begin now."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            pipe.hget(keys.HOST + host, "until")
            time, until = cast("tuple[tuple[int, int], bytes | None]", pipe.execute())
        return max(0.0, (int(until) - milliseconds(time)) / 1000) if until else 0.0

    def task(self, task_id: str) -> Task | None:
        """Return the task, or None if it is unknown or has expired."""
        with redis_errors():
            values = cast("list[bytes | None]", self._redis.hmget(keys.TASK + task_id, FIELDS))
        return None if values[0] is None else task_from(task_id, values)

    def tasks(self, task_ids: Sequence[str]) -> list[Task]:
        """Return the existing ones among these tasks, in order."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for task_id in task_ids:
                pipe.hmget(keys.TASK + task_id, FIELDS)
            rows = cast("list[list[bytes | None]]", pipe.execute())
        return [task_from(task_id, values) for task_id, values in zip(task_ids, rows, strict=True) if values[0]]

    def uploads_of(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Return the ids of the uploads that these tasks may still need, by task id."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for task_id in task_ids:
                pipe.hget(keys.TASK + task_id, "job")
            jobs = cast("list[bytes | None]", pipe.execute())
        upload_ids = {task_id: job_of(job)["upload_id"] for task_id, job in zip(task_ids, jobs, strict=True) if job}
        return {task_id: upload_id for task_id, upload_id in upload_ids.items() if upload_id}

    def check(self) -> None:
        """Ping Redis."""
        with redis_errors():
            self._redis.ping()
