"""The outbox of callbacks in Redis: ended tasks whose senders are to be told, and who tells them next.

An entry is written in the very step that ends its task (`Ledger.close`), so no death in between loses it. The ends
that wait for one URL are sent together, in order, by whoever claims them: a claim is a lease, and what its holder does
not report is another's when it is over. A delivery keeps its id and its entries until it is taken or given up.
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
# Deliveries to one receiver at once, over all workers: one that hangs takes no more of them.
MOST_AT_ONCE = 4
# URLs looked at in one step.
LOOKED_AT_MOST = 100
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 3600.0
# What a claim lasts beyond the longest call.
LEASED_LONGER_S = 20.0


class CallState(StrEnum):
    """The life of a callback: pending → one of the rest.

    Failed: the receiver did not take it in time, or is gone. Dropped: too many waited already.
    """

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Callback:
    """How far the call is that tells a task's sender of its end.

    `next` is when it is tried again, in milliseconds since 1970.
    """

    state: CallState = CallState.PENDING
    attempts: int = 0
    next: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A task that has ended: when, in milliseconds since 1970, and what the ledger held of it then."""

    task_id: str
    at: int
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Ended tasks to be told to `url`; `attempt` counts from 1, and `id` stays through all of them."""

    url: str
    id: str
    attempt: int
    ends: Sequence[Ended]


class Told(StrEnum):
    """How an attempt ended: the receiver took the delivery, wants no more of it ever, or neither."""

    TAKEN = "accepted"
    GONE = "gone"
    FAILED = "failed"


class Outbox:
    """What deliverers do with callbacks, many at once.

    `lease_s` is how long a claim lasts, `keep_s` how long after its task's end a callback is worth sending. Both
    methods raise QueueUnavailable when Redis does not answer and QueueError when it refuses.
    """

    def __init__(self, redis: Redis, *, lease_s: float, keep_s: float) -> None:
        limits: dict[str, str | float] = {
            "delivery_size": DELIVERY_SIZE,
            "max_concurrent": MOST_AT_ONCE,
            "keep_ms": int(keep_s * 1000),
        }
        self._claim = script(
            redis, "claim_delivery", max_scanned=LOOKED_AT_MOST, claim_ms=int(lease_s * 1000), **limits
        )
        self._report = script(
            redis,
            "report_delivery",
            first_pause_ms=int(FIRST_PAUSE_S * 1000),
            longest_pause_ms=int(LONGEST_PAUSE_S * 1000),
            **limits,
        )

    def claim(self) -> Delivery | None:
        """Return a delivery that is due, now this caller's until it reports; None when there is none."""
        while True:
            fresh = f"msg_{secrets.token_hex(16)}"
            with redis_errors():
                answer = self._claim(new_id=fresh)
            if answer is None:
                return None
            if answer:
                url, id_, attempt, entries = cast("tuple[bytes, bytes, int, list[bytes]]", answer)
                return Delivery(
                    url=url.decode(), id=id_.decode(), attempt=int(attempt), ends=[_ended(entry) for entry in entries]
                )

    def report(
        self, delivery: Delivery, told: Told, *, problem: str = "", answered: bool = True, jitter: float = 1.0
    ) -> CallState | None:
        """Note how the attempt ended, and return what its callbacks have come to; None where it was not ours any more.

        `answered` says whether the receiver answered at all: else every URL of its waits. Pauses double from
        FIRST_PAUSE_S to LONGEST_PAUSE_S, times `jitter`.
        """
        with redis_errors():
            answer = self._report(
                url=delivery.url,
                delivery_id=delivery.id,
                attempt=delivery.attempt,
                result=told.value,
                problem=problem,
                responded=int(answered),
                jitter=jitter,
            )
        return CallState(cast("bytes", answer).decode()) if answer else None


def callback_of(called: str) -> Callback:
    """Return what a task's field `called` tells; an empty one is that of a callback not tried yet.

    >>> callback_of("pending 2 1700000000000 the host answered with status 500").attempts
    2
    """
    if not called:
        return Callback()
    state, attempts, next_ms, problem = called.split(" ", 3)
    return Callback(CallState(state), int(attempts), int(next_ms) or None, problem or None)


def _ended(entry: bytes) -> Ended:
    _, at, task_id, fields = entry.decode().split(" ", 3)
    return Ended(task_id=task_id, at=int(at), fields=json.loads(fields))
