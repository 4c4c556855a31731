"""The outbox: callbacks of ended tasks and batches, and their deliveries.

The script that ends a task adds its callback in the same step (`Ledger.finish`), so no crash in between loses it.
Callbacks to one URL are delivered together, in order; the end of a batch has a delivery of its own, after those of its
tasks. A deliverer claims a delivery with a lease. If it reports no
result, another deliverer can claim the delivery when the lease ends. A delivery keeps its id and its entries until it
succeeds or is given up.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from redis import Redis

from common.queue.scripts import script
from common.redis.client import redis_errors

# The fields of a task's hash that its callback reports.
ENDED_FIELDS = (
    "state",
    "filepath",
    "seq",
    "accepted",
    "started",
    "finished",
    "attempts",
    "code",
    "error",
    "warning",
    "request",
    "collection",
    "action",
    "batch",
)
# The ids of batches in the outbox begin with this word (`lua/callback_entries.lua`).
BATCH_ENTRY = "batch:"
# Time that a callback waits for others to the same URL. Callbacks of a batch wait longer, so that they fill a delivery.
LINGER_MS = 1000
LINGER_BATCH_MS = 5000
# Maximum number of tasks in a delivery.
DELIVERY_SIZE = 100
# Concurrent deliveries to one receiver, over all workers. A receiver that hangs occupies no more than these.
MAX_CONCURRENT = 4
# URLs that one step checks.
MAX_SCANNED = 100
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 3600.0
# Duration of a claim beyond the time-out of the HTTP request.
LEASE_MARGIN_S = 20.0


class CallbackState(StrEnum):
    """The state of a callback: pending → one of the others.

    FAILED: the receiver did not accept it in time, or answered 410 Gone. DROPPED: too many callbacks were waiting.
    """

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Callback:
    """The state of a task's callback.

    `next` is the time of the next attempt, in milliseconds since 1970.
    """

    state: CallbackState = CallbackState.PENDING
    attempts: int = 0
    next: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTask:
    """A task that has ended at `ended_at` (ms since 1970), with the fields that its hash had at that time."""

    task_id: str
    ended_at: int
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedBatch:
    """A batch that has ended at `ended_at` (ms since 1970), with the fields that its hash had at that time."""

    batch_id: str
    ended_at: int
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Ended tasks, or one ended batch, to be sent to `url`.

    `attempt` counts from 1, `id` is the same in all attempts.
    """

    url: str
    id: str
    attempt: int
    tasks: Sequence[EndedTask] = ()
    batch: EndedBatch | None = None

    @property
    def count(self) -> int:
        """The number of callbacks."""
        return len(self.tasks) + (self.batch is not None)


class DeliveryResult(StrEnum):
    """The result of an attempt. GONE: the receiver answered 410 Gone. FAILED: a retry may succeed."""

    ACCEPTED = "accepted"
    GONE = "gone"
    FAILED = "failed"


class Outbox:
    """The outbox; any number of deliverers may use it at once.

    `lease_s` is the duration of a claim. A callback is sent up to `keep_s` after its task's end. Both methods raise
    QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis, *, lease_s: float, keep_s: float) -> None:
        limits: dict[str, str | float] = {
            "delivery_size": DELIVERY_SIZE,
            "max_concurrent": MAX_CONCURRENT,
            "keep_ms": int(keep_s * 1000),
        }
        self._claim = script(redis, "claim_delivery", max_scanned=MAX_SCANNED, claim_ms=int(lease_s * 1000), **limits)
        self._report = script(
            redis,
            "report_delivery",
            first_pause_ms=int(FIRST_PAUSE_S * 1000),
            longest_pause_ms=int(LONGEST_PAUSE_S * 1000),
            **limits,
        )

    def claim(self) -> Delivery | None:
        """Claim and return a delivery that is due; None if no delivery is due."""
        while True:
            new_id = f"msg_{secrets.token_hex(16)}"
            with redis_errors():
                reply = self._claim(new_id=new_id)
            if reply is None:
                return None
            if reply:
                url, id_, attempt, entries = cast("tuple[bytes, bytes, int, list[bytes]]", reply)
                return _delivery(url.decode(), id_.decode(), int(attempt), entries)

    def report(
        self,
        delivery: Delivery,
        result: DeliveryResult,
        *,
        problem: str = "",
        responded: bool = True,
        jitter: float = 1.0,
    ) -> CallbackState | None:
        """End the attempt, and return the state of its callbacks; None if the claim had ended.

        `responded` is False if the receiver did not respond at all; then deliveries to all its URLs pause. Pauses
        double from FIRST_PAUSE_S to LONGEST_PAUSE_S, times `jitter`.
        """
        with redis_errors():
            reply = self._report(
                url=delivery.url,
                delivery_id=delivery.id,
                attempt=delivery.attempt,
                result=result.value,
                problem=problem,
                responded=int(responded),
                jitter=jitter,
            )
        return CallbackState(cast("bytes", reply).decode()) if reply else None


def callback_of(text: str) -> Callback:
    """Parse a task's field `called`; it is empty before the first attempt.

    >>> callback_of("pending 2 1700000000000 the host answered with status 500").attempts
    2
    """
    if not text:
        return Callback()
    state, attempts, next_ms, problem = text.split(" ", 3)
    return Callback(CallbackState(state), int(attempts), int(next_ms) or None, problem or None)


def _delivery(url: str, id_: str, attempt: int, entries: Sequence[bytes]) -> Delivery:
    tasks, batch = [], None
    for entry in entries:
        _, at, subject, fields = entry.decode().split(" ", 3)
        if subject.startswith(BATCH_ENTRY):
            batch = EndedBatch(batch_id=subject.removeprefix(BATCH_ENTRY), ended_at=int(at), fields=json.loads(fields))
        else:
            tasks.append(EndedTask(task_id=subject, ended_at=int(at), fields=json.loads(fields)))
    return Delivery(url=url, id=id_, attempt=attempt, tasks=tasks, batch=batch)
