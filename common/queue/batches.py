"""Batches: the tasks of one client's upload, counted by state.

The scripts that change the state of a task change the counters of its batch in the same step. The counters are exact
after redelivered messages, retries and deaths of workers. A batch has no list of its tasks.

A request joins the batch before it adds tasks, and leaves it when it adds no more. The batch ends when no request is
adding and none of its tasks is open. It is open again when one of its failed tasks is retried, or a request adds more.
"""

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from redis import Redis

from common.collection_names import DEFAULT_COLLECTION
from common.errors import InputError
from common.queue import keys
from common.queue.callbacks import Callback, callback_of
from common.queue.scripts import script
from common.queue.tasks import NEW_CODES, State
from common.redis.client import redis_errors
from common.redis.clock import milliseconds

# A request of a process that died keeps its batch open for this time after its last tasks.
LEASE_S = 300
# The rate of a batch is that of the last one or two windows.
RATE_WINDOW_MS = 10_000
# The rate of a shorter time would mislead.
MIN_RATE_MS = 1000
CODE = "code:"
HEADER = "X-Batch-ID"
# Of ids that clients choose. A longer value in the hash of a task would take more memory.
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CURSOR = re.compile(rf"(?P<accepted>[0-9]{{1,16}})-(?P<id>{ID.pattern})")
ENDED_STATES = (State.SUCCEEDED, State.SUPERSEDED, State.FAILED, State.CANCELLED)


class BatchConflict(InputError):
    """The batch belongs to another API key or collection."""

    code = "batch_conflict"


class BatchCancelled(InputError):
    """The batch is cancelled, so that it accepts no more tasks."""

    code = "batch_cancelled"

    def __init__(self) -> None:
        super().__init__("the batch is cancelled", field=HEADER)


class BatchState(StrEnum):
    """RUNNING: tasks are open, or a request may add more. ENDED: all tasks have ended. CANCELLED: by a client."""

    RUNNING = "running"
    ENDED = "ended"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that a request adds tasks to; `request` is the name of the request's lease."""

    id: str
    request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The state of a batch.

    `open` is the number of its tasks that can still change. `failures` counts its failed tasks by code. Times are in
    milliseconds since 1970 (UTC); `ended` is None while tasks are open. `rate_per_s` is the number of tasks that ended
    per second, recently or, of an ended batch, on average. `seconds_left` is None without a rate. `owner` is the name
    of the API key; empty without keys.
    """

    id: str
    state: BatchState
    collection: str
    owner: str
    open: int
    total: int
    pending: int
    running: int
    succeeded: int
    superseded: int
    failed: int
    cancelled: int
    failures: Mapping[str, int]
    accepted: int
    ended: int | None
    rate_per_s: float
    seconds_left: int | None
    request_id: str | None = None
    callback: Callback | None = None

    @property
    def begun(self) -> int:
        """Return the number of its tasks that are running or have ended."""
        return self.running + self.succeeded + self.superseded + self.failed + self.cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPage:
    """Batches of one collection, the newest first, and the cursor of the next page; None at the end."""

    batches: Sequence[Batch]
    cursor: str | None


class Batches:
    """The batches of all collections.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._join = script(redis, "join_batch", lease_ms=LEASE_S * 1000)
        self._cancel = script(redis, "cancel_batch")
        self._purge = script(redis, "purge_batches")
        self._count = script(redis, "count_batch", rate_window_ms=RATE_WINDOW_MS)

    def join(
        self,
        batch_id: str,
        *,
        owner: str = "",
        collection: str = DEFAULT_COLLECTION,
        request_id: str = "",
        callback_url: str = "",
    ) -> OpenBatch:
        """Begin to add to a batch, which is created if it does not exist; `Ledger.leave_batch` ends it.

        Raises BatchConflict if the batch belongs to another API key or collection, and BatchCancelled.
        """
        batch = OpenBatch(batch_id, secrets.token_hex(8))
        with redis_errors():
            outcome = self._join(
                batch=batch.id,
                request=batch.request,
                collection=collection,
                owner=owner,
                request_id=request_id,
                callback=callback_url,
            )
        if outcome == b"other":
            raise BatchConflict("the batch belongs to another API key or collection", field=HEADER)
        if outcome == b"cancelled":
            raise BatchCancelled
        return batch

    def count(self, batch_id: str, *, total: int = 0, ended: Mapping[State, int] | None = None) -> bool:
        """Change the counters of a batch whose work is not in counted tasks; return whether the batch exists.

        `total` is added to the number of its tasks, and `ended` to those in each state.
        """
        changes = {"total": total, **{state.value: count for state, count in (ended or {}).items()}}
        words = [word for name, change in changes.items() for word in (name, change)]
        # redis-py repeats a call whose reply was lost.
        with redis_errors():
            return bool(self._count(*words, batch=batch_id, step=secrets.token_hex(8)))

    def get(self, batch_id: str) -> Batch | None:
        """Return the batch, or None if it is unknown or has expired."""
        return next(iter(self._read([batch_id])), None)

    def page(self, collection: str, *, limit: int, cursor: str | None = None) -> BatchPage:
        """Return batches of the collection, the newest first, after `cursor`.

        Raises InputError for a cursor that no page returned.
        """
        key = keys.BATCHES + collection
        with redis_errors():
            start = 0 if cursor is None else self._rank_after(key, cursor)
            rows = cast(
                "list[tuple[bytes, float]]",
                self._redis.zrevrange(key, start, start + limit, withscores=True),
            )
        listed, more = rows[:limit], rows[limit:]
        batches = self._read([batch_id.decode() for batch_id, _ in listed])
        last = f"{int(listed[-1][1])}-{listed[-1][0].decode()}" if more else None
        return BatchPage(batches=batches, cursor=last)

    def cancel(self, batch_id: str) -> bool:
        """Cancel the batch, unless it has ended; return whether it exists.

        It accepts no more tasks, and its pending tasks end as cancelled before they begin.
        """
        with redis_errors():
            return bool(self._cancel(batch=batch_id))

    def purge(self, *, limit: int) -> int:
        """Remove up to `limit` expired batches from the lists, and return their number."""
        with redis_errors():
            return int(cast("int", self._purge(limit=limit)))

    def _rank_after(self, key: str, cursor: str) -> int:
        match = CURSOR.fullmatch(cursor)
        if match is None:
            raise InputError("cursor: not one that a list of batches returned", field="cursor")
        rank = cast("int | None", self._redis.zrevrank(key, match["id"]))
        # The last batch of the page has expired: continue at its time.
        return rank + 1 if rank is not None else int(self._redis.zcount(key, match["accepted"], "+inf"))

    def _read(self, batch_ids: Sequence[str]) -> list[Batch]:
        """Return the existing ones among these batches."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            for batch_id in batch_ids:
                pipe.hgetall(keys.BATCH + batch_id)
            time, *rows = pipe.execute()
        now = milliseconds(time)
        return [
            batch_of(batch_id, {name.decode(): value.decode() for name, value in row.items()}, now=now)
            for batch_id, row in zip(batch_ids, rows, strict=True)
            if row
        ]


def batch_of(batch_id: str, fields: Mapping[str, str], *, now: int) -> Batch:
    """Return the batch whose hash has these fields at the time `now` (ms since 1970)."""

    def count(name: str) -> int:
        return int(fields.get(name, 0))

    by_state: dict[str, Any] = {state.value: count(state) for state in (State.RUNNING, *ENDED_STATES)}
    finished = int(fields["finished"]) if "finished" in fields else None
    has_ended = finished is not None and count("open") == 0
    # The total of a deletion of images is an estimate, which is corrected only if the deletion succeeds.
    pending = 0 if has_ended else max(0, count("total") - sum(by_state.values()))
    rate = _rate(fields, now=now, ended=sum(count(state) for state in ENDED_STATES))
    return Batch(
        id=batch_id,
        state=_state(fields),
        collection=fields["collection"],
        owner=fields.get("owner", ""),
        open=count("open"),
        total=count("total"),
        pending=pending,
        **by_state,
        failures=_failures(fields),
        accepted=int(fields["accepted"]),
        ended=finished,
        rate_per_s=round(rate, 1),
        seconds_left=_seconds_left(pending + by_state[State.RUNNING], rate),
        request_id=fields.get("request"),
        callback=callback_of(fields.get("called", "")) if "callback" in fields else None,
    )


def _state(fields: Mapping[str, str]) -> BatchState:
    if "cancelled_at" in fields:
        return BatchState.CANCELLED
    return BatchState.ENDED if "finished" in fields else BatchState.RUNNING


def _failures(fields: Mapping[str, str]) -> dict[str, int]:
    """Return the failures by code, the most frequent first."""
    totals: dict[str, int] = {}
    for name, count in fields.items():
        if name.startswith(CODE):
            code = NEW_CODES.get(name.removeprefix(CODE), name.removeprefix(CODE))
            totals[code] = totals.get(code, 0) + int(count)
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


def _rate(fields: Mapping[str, str], *, now: int, ended: int) -> float:
    """Return the number of tasks that end per second."""
    if "started" not in fields:
        return 0.0
    if "finished" in fields:
        since, before, now = int(fields["started"]), int(fields["before"]), int(fields["finished"])
    elif "last_at" in fields:
        since, before = int(fields["last_at"]), int(fields["last_ended"])
    else:
        since, before = int(fields["window_at"]), int(fields["window_ended"])
    return 1000 * max(0, ended - before) / max(MIN_RATE_MS, now - since)


def _seconds_left(left: int, rate: float) -> int | None:
    if left == 0:
        return 0
    return math.ceil(left / rate) if rate else None
