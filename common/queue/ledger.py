"""Accepted work in Redis: the state of each task, and which tasks are still open.

The queue alone may lose a message (a worker that dies between taking it and noting it); the ledger never does. A task
is written here before its message is sent and closed here after the store has confirmed it, so a task that stays open
too long is enqueued again (`workers.sweeper`).

The step that ends a task also adds its callback to the outbox (`common.queue.callbacks`). The names of all keys are in
`common.queue.keys`.
"""

import secrets
from collections.abc import Sequence
from typing import Any, cast

from redis import Redis

from common.config import MIB
from common.errors import FetchError, Overloaded
from common.net.addresses import read_url
from common.queue import keys
from common.queue.callbacks import DELIVERY_SIZE, ENDED_FIELDS, LINGER_BATCH_MS, LINGER_MS, Callback
from common.queue.host_limits import NO_LIMIT, HostLimit
from common.queue.jobs import BATCH_QUEUE, NOWHERE, AddJob, Order, Origin
from common.queue.scripts import script
from common.queue.tasks import FIELDS, Claim, Closing, Entry, Known, Refusal, Sent, State, Task, task_from
from common.redis.client import RETRY_AFTER_S, redis_errors

# How long a task whose id follows from its sender's key is kept at least, from when it was accepted.
REMEMBERED_S = 86_400

REFUSAL_OF = {"unknown": Refusal.UNKNOWN, "late": Refusal.TOO_LATE, "emptied": Refusal.UPLOAD_LOST}


class Ledger:
    """The one place that knows which work was accepted and what became of it.

    Every method raises QueueUnavailable when Redis does not answer and QueueError when it refuses.
    """

    def __init__(  # noqa: PLR0913 - every limit is the caller's to set, each by name
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
        self._host_limit = host_limit
        callbacks: dict[str, str | float] = {
            "max_callback_bytes": max_callbacks_bytes,
            "delivery_size": DELIVERY_SIZE,
            "linger_ms": LINGER_MS,
            "batch_linger_ms": LINGER_BATCH_MS,
            "batch_queue": BATCH_QUEUE,
            "ended_fields": " ".join(ENDED_FIELDS),
        }
        self._enqueue = script(redis, "enqueue", max_open=max_open, remember_ms=REMEMBERED_S * 1000)
        self._begin = script(redis, "begin", max_slots=host_limit.slots, slot_lease_ms=host_limit.lease_ms)
        self._give_back = script(redis, "give_back")
        self._finish = script(
            redis, "finish", finished_keep_s=finished_keep_s, failed_keep_s=failed_keep_s, **callbacks
        )
        self._cancel = script(redis, "cancel", finished_keep_s=finished_keep_s, **callbacks)
        self._retry = script(redis, "retry", max_age_ms=failed_keep_s * 1000)

    def accept(self, jobs: Sequence[AddJob], *, queue: str, origin: Origin = NOWHERE) -> list[Task]:
        """Write one pending task a job, all or none, each with its place in the order of requests.

        Raises Overloaded when more than `max_open` tasks would be open.
        """
        entries = self.enter([Order(job=job, host=_host(job)) for job in jobs], queue=queue, origin=origin)
        return [entry.task for entry in entries]

    def enter(self, orders: Sequence[Order], *, queue: str, origin: Origin = NOWHERE) -> list[Entry]:
        """Write a pending task an order, as `accept`; one whose task is there already gets that one, as it is now.

        Several may enter the same orders at once: each task is new to exactly one of them.
        """
        ids = [order.task_id or secrets.token_hex(16) for order in orders]
        items = [
            part
            for task_id, order in zip(ids, orders, strict=True)
            for part in (
                task_id,
                order.job.filepath,
                order.job.to_json(),
                order.host if self._host_limit.slots else "",
                order.callback,
                order.fingerprint,
            )
        ]
        with redis_errors():
            answer = self._enqueue(*items, queue=queue, request_id=origin.request_id, traceparent=origin.traceparent)
        if answer is None:
            raise Overloaded("too many pictures are waiting", retry_after=RETRY_AFTER_S)
        first, now, *known = cast("list[Any]", answer)
        there = self.known([task_id for task_id, mark in zip(ids, *known, strict=True) if mark]) if known else {}
        return [
            there[task_id].entry(order.fingerprint)
            if task_id in there
            else Entry(
                Task(
                    id=task_id,
                    state=State.PENDING,
                    filepath=order.job.filepath,
                    seq=first + place,
                    accepted=now,
                    request_id=origin.request_id or None,
                    callback=Callback() if order.callback else None,
                )
            )
            for place, (task_id, order) in enumerate(zip(ids, orders, strict=True))
        ]

    def known(self, task_ids: Sequence[str]) -> dict[str, Known]:
        """Return those of these tasks that are there and were entered by an id of their sender's."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for task_id in task_ids:
                pipe.hmget(keys.TASK + task_id, *FIELDS, "fingerprint")
            found = cast("list[list[bytes | None]]", pipe.execute())
        return {
            task_id: Known(task_from(task_id, values), fingerprint.decode())
            for task_id, (*values, fingerprint) in zip(task_ids, found, strict=True)
            if fingerprint
        }

    def begin(self, task_id: str) -> Claim | None:
        """Mark the task as running and return its work; None when there is none to do now.

        There is none for a task that is closed or unknown, nor for one whose host has no free slot: that one waits,
        pending, without a message, until `HostSlots` returns it.
        """
        with redis_errors():
            answer = self._begin(id=task_id)
        if not answer:
            return None
        seq, job, host, request_id, traceparent = (part.decode() for part in cast("list[bytes]", answer))
        return Claim(
            task_id=task_id,
            seq=int(seq),
            job=AddJob.from_json(job),
            host=host or None,
            origin=Origin(request_id=request_id, traceparent=traceparent),
        )

    def give_back(self, task_id: str) -> None:
        """Mark a running task as pending again: its worker could not finish it now."""
        with redis_errors():
            self._give_back(id=task_id)

    def close(self, closings: Sequence[Closing]) -> int:
        """End tasks and tell who waits for them; return how many callbacks had to be dropped: too many wait.

        One that is closed already keeps its first end, save that of a failure that another delivery made good.
        """
        if not closings:
            return 0
        items = [part for end in closings for part in (end.task_id, end.state.value, end.code, end.error)]
        with redis_errors():
            return int(cast("int", self._finish(*items)))

    def cancel(self, task_id: str) -> State | None:
        """Cancel the task if it is pending, tell who waits for it, and return the state that it was in.

        None for a task that is unknown or was forgotten.
        """
        with redis_errors():
            was = cast("bytes | None", self._cancel(id=task_id))
        return State(was.decode()) if was else None

    def retry(self, task_ids: Sequence[str]) -> list[Sent | Refusal]:
        """Open failed tasks again, each with its old place in the order of requests.

        Returns in the order given what is to be sent now, or why a task stays as it is.
        """
        if not task_ids:
            return []
        with redis_errors():
            answer = self._retry(*task_ids)
        now, outcomes = cast("tuple[int, list[bytes]]", answer)
        return [
            Sent(task_id=task_id, queue=queue.decode(), at=now)
            if was == State.FAILED.value.encode()
            else REFUSAL_OF.get(was.decode(), Refusal.NOT_FAILED)
            for task_id, was, queue in zip(task_ids, outcomes[::2], outcomes[1::2], strict=True)
        ]

    def task(self, task_id: str) -> Task | None:
        """Return the task, or None when it is unknown or was forgotten."""
        with redis_errors():
            values = cast("list[bytes | None]", self._redis.hmget(keys.TASK + task_id, FIELDS))
        return None if values[0] is None else task_from(task_id, values)

    def uploads_of(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Return the claim checks of those of these tasks that have an upload and may yet need it."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for task_id in task_ids:
                pipe.hget(keys.TASK + task_id, "job")
            jobs = cast("list[bytes | None]", pipe.execute())
        found = {
            task_id: AddJob.from_json(job.decode()).upload for task_id, job in zip(task_ids, jobs, strict=True) if job
        }
        return {task_id: upload for task_id, upload in found.items() if upload}

    def open_count(self) -> int:
        """Return how many tasks wait or run."""
        with redis_errors():
            return int(self._redis.zcard(keys.OPEN))

    def check(self) -> None:
        """Return when Redis answers."""
        with redis_errors():
            self._redis.ping()


def _host(job: AddJob) -> str:
    if job.url is None:
        return ""
    try:
        return read_url(job.url).host
    except FetchError:
        # It will fail with its reason when it is fetched.
        return ""
