"""The outbox of callbacks in Redis: ended tasks whose senders are to be told, and who tells them next.

An entry is written in the very step that ends its task (`common.queue.ledger_scripts`), so no death in between loses
it. The ends that wait for one URL are sent together, in order, by whoever claims them: a claim is a lease, and what its
holder does not report is another's when it is over. A delivery keeps its id and its entries until it is taken or given
up.

Keys, all under `match:callbacks:`

- `due`: sorted set of the URLs for which something waits, by when it is to be sent (ms)
- `ends:<url>`: list of the ended tasks that wait, the oldest first; the delivery under way is its head
- `delivery:<url>`: hash of the delivery under way: its id, how many entries, how many attempts, failures since the last
  one that was taken
- `bytes`: hash of how many bytes wait, for each receiver (host and port) and, under an empty name, in all
- `receiver:<receiver>`: hash of one that gave no answer: how often, and until when it is left alone
- `parked:<receiver>`: sorted set of the URLs that wait for a place there, by when they came (ms)
- `at:<receiver>`: sorted set of the URLs that somebody sends to just now, by when that must be over (ms)
- `oldest`: sorted set of the URLs for which something waits, by when the oldest of it ended (ms)
- `counts`: hash of how many callbacks wait, under `pending`, and how many have come to each other state
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from redis import Redis

from common.queue import callback_scripts as scripts
from common.redis.client import redis_errors

COUNTS = "match:callbacks:counts"
OLDEST = "match:callbacks:oldest"
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

    TAKEN = "taken"
    GONE = "gone"
    FAILED = "failed"


class Outbox:
    """What deliverers do with callbacks, many at once.

    `lease_s` is how long a claim lasts, `keep_s` how long after its task's end a callback is worth sending. Both
    methods raise QueueUnavailable when Redis does not answer and QueueError when it refuses.
    """

    def __init__(self, redis: Redis, *, lease_s: float, keep_s: float) -> None:
        self._lease_ms = int(lease_s * 1000)
        self._keep_ms = int(keep_s * 1000)
        self._claim = redis.register_script(scripts.CLAIM)
        self._report = redis.register_script(scripts.REPORT)

    def claim(self) -> Delivery | None:
        """Return a delivery that is due, now this caller's until it reports; None when there is none."""
        while True:
            fresh = f"msg_{secrets.token_hex(16)}"
            with redis_errors():
                answer = self._claim(args=[fresh, self._lease_ms, MOST_AT_ONCE, self._keep_ms, LOOKED_AT_MOST])
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
        terms = (int(FIRST_PAUSE_S * 1000), int(LONGEST_PAUSE_S * 1000), jitter, self._keep_ms, MOST_AT_ONCE)
        with redis_errors():
            answer = self._report(
                args=[delivery.url, delivery.id, delivery.attempt, told.value, int(answered), problem, *terms]
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
