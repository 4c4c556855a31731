"""The outbox of callbacks: ended tasks whose senders are to be called, and their deliveries.

The script that ends a task adds its callback (`Ledger.finish`), so no crash in between loses it. Callbacks to one URL
are delivered together, in order. A deliverer claims a delivery; a claim is a lease, and what its holder does not report
can be claimed by another when it ends. A delivery keeps its id and its entries until it succeeds or is given up.
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
ENDED_FIELDS = ("state", "filepath", "seq", "accepted", "started", "finished", "attempts", "code", "error", "request")
# How long a callback waits for others to the same URL: those of a batch longer, so that they fill a delivery.
LINGER_MS = 1000
LINGER_BATCH_MS = 5000
# Most tasks in a delivery.
DELIVERY_SIZE = 100
# Concurrent deliveries to one receiver, over all workers: one that hangs occupies no more of them.
MAX_CONCURRENT = 4
# URLs looked at in one step.
MAX_SCANNED = 100
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 3600.0
# How long a claim lasts beyond the longest call.
LEASED_LONGER_S = 20.0


class CallState(StrEnum):
    """The state of a callback: pending → one of the others.

    Failed: the receiver did not accept it in time, or is gone. Dropped: too many were waiting.
    """

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Callback:
    """The callback of a task, as clients see it.

    `next` is the time of the next attempt, in milliseconds since 1970.
    """

    state: CallState = CallState.PENDING
    attempts: int = 0
    next: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A task that has ended: when, in milliseconds since 1970, and the fields of its hash then."""

    task_id: str
    ended_at: int
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Ended tasks to be sent to `url`; `attempt` counts from 1, `id` is the same in all attempts."""

    url: str
    id: str
    attempt: int
    ends: Sequence[Ended]


class DeliveryResult(StrEnum):
    """The result of an attempt: the receiver accepted the delivery, is gone for good, or neither."""

    ACCEPTED = "accepted"
    GONE = "gone"
    FAILED = "failed"


class Outbox:
    """The outbox, for many deliverers at once.

    `lease_s` is how long a claim lasts, `keep_s` how long after its task's end a callback is sent. Both methods raise
    QueueUnavailable when Redis does not answer and QueueError when it refuses.
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
        """Claim and return a delivery that is due; None where there is none."""
        while True:
            new_id = f"msg_{secrets.token_hex(16)}"
            with redis_errors():
                reply = self._claim(new_id=new_id)
            if reply is None:
                return None
            if reply:
                url, id_, attempt, entries = cast("tuple[bytes, bytes, int, list[bytes]]", reply)
                return Delivery(
                    url=url.decode(), id=id_.decode(), attempt=int(attempt), ends=[_ended(entry) for entry in entries]
                )

    def report(
        self,
        delivery: Delivery,
        result: DeliveryResult,
        *,
        problem: str = "",
        responded: bool = True,
        jitter: float = 1.0,
    ) -> CallState | None:
        """End the attempt, and return the state of its callbacks; None where the claim had ended.

        `responded` is whether the receiver responded at all: otherwise all its URLs wait. Pauses double from
        FIRST_PAUSE_S to LONGEST_PAUSE_S, times `jitter`.
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
        return CallState(cast("bytes", reply).decode()) if reply else None


def callback_of(called: str) -> Callback:
    """Read a task's field `called`; it is empty for a callback that was not tried yet.

    >>> callback_of("pending 2 1700000000000 the host answered with status 500").attempts
    2
    """
    if not called:
        return Callback()
    state, attempts, next_ms, problem = called.split(" ", 3)
    return Callback(CallState(state), int(attempts), int(next_ms) or None, problem or None)


def _ended(entry: bytes) -> Ended:
    _, at, task_id, fields = entry.decode().split(" ", 3)
    return Ended(task_id=task_id, ended_at=int(at), fields=json.loads(fields))
