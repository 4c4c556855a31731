"""Accepted work in Redis: the state of each task, the order of all requests, and what is still open.

The queue alone may lose a message (a worker that dies between taking it and noting it); the ledger never does. A task
is written here before its message is sent and closed here after the store has confirmed it, so whatever stays open too
long is sent again (`workers.sweeper`).

Keys, all under `match:`

- `task:<id>`: hash, the task itself
- `open`: sorted set of open tasks by the time they were last sent (ms)
- `running`: sorted set of those of them that a worker has begun, by when it did (ms)
- `failed`: sorted set of failed tasks by the time they failed (ms)
- `seq`: the last place given in the order of requests
- `closed`: channel on which the id of each closed task is published
- `fetching:<host>`: sorted set of the tasks that have a place at a host, by the time until which they have it (ms)
- `parked:<queue>:<host>`: sorted set of the tasks that wait for one, by their place in the order of requests
- `crowded`: set of the hosts that somebody waits for
- `ended`: hash of how many tasks ended in each way, `state:code`, for ever

The step that ends a task writes as well that its sender is to be called back (`common.queue.callbacks`).
"""

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from redis import Redis

from common.config import MIB
from common.errors import FetchError, InputError, Overloaded
from common.net.addresses import read_url
from common.queue import ledger_scripts as scripts
from common.queue.callback_scripts import ENDED_FIELDS
from common.queue.callbacks import Callback
from common.queue.jobs import NOWHERE, QUEUES, AddJob, Order, Origin
from common.queue.tasks import Claim, Closing, Entry, Known, Page, Refusal, Sent, State, Task, task_of
from common.redis.client import RETRY_AFTER_S, redis_errors

CLOSED_CHANNEL = "match:closed"
OPEN = "match:open"
RUNNING = "match:running"
FAILED = "match:failed"
SEQ = "match:seq"
CROWDED = "match:crowded"
ENDED = "match:ended"
FETCHING = "match:fetching:"
TASK = "match:task:"

# Tasks looked at for one page of a list: a filter that fits few costs each request no more than that.
LOOKED_AT_MOST = 1000
# Tasks sent at once to a host when there is no limit any more.
WOKEN_MOST = 500


# Where the tasks of a state can be found; those that ended well are kept, but not listed.
LISTED = {State.FAILED: FAILED, State.PENDING: OPEN, State.RUNNING: RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlaces:
    """How many downloads from one host there may be at once, over all workers; 0: any number.

    `lease_s` is how long a place is kept for one whose worker died: above the longest time of a download.
    """

    most: int
    lease_s: float


ANY_PLACE = HostPlaces(most=0, lease_s=1.0)
REFUSAL_OF = {"unknown": Refusal.UNKNOWN, "late": Refusal.TOO_LATE, "emptied": Refusal.UPLOAD_LOST}
CURSOR = re.compile(r"([0-9]{1,16})-([0-9a-f]{32})")
_FIELDS = (*ENDED_FIELDS, "callback", "called")


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
        host_places: HostPlaces = ANY_PLACE,
        max_callbacks_bytes: int = 256 * MIB,
    ) -> None:
        self._redis = redis
        self._max_open = max_open
        self._finished_keep_s = finished_keep_s
        self._failed_keep_s = failed_keep_s
        self._places = host_places
        self._max_callbacks_bytes = max_callbacks_bytes
        self._lease_ms = int(host_places.lease_s * 1000)
        self._take_seq = redis.register_script(scripts.TAKE_SEQ)
        self._accept = redis.register_script(scripts.ACCEPT)
        self._begin = redis.register_script(scripts.BEGIN)
        self._leave = redis.register_script(scripts.LEAVE)
        self._risk = redis.register_script(scripts.RISK)
        self._give_back = redis.register_script(scripts.GIVE_BACK)
        self._close = redis.register_script(scripts.CLOSE)
        self._cancel = redis.register_script(scripts.CANCEL)
        self._retry = redis.register_script(scripts.RETRY)
        self._empty = redis.register_script(scripts.EMPTY)
        self._page = redis.register_script(scripts.PAGE)
        self._restamp = redis.register_script(scripts.RESTAMP)
        self._take_back = redis.register_script(scripts.TAKE_BACK)
        self._lease = redis.register_script(scripts.LEASE)

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
                order.host if self._places.most else "",
                order.callback,
                order.fingerprint,
            )
        ]
        with redis_errors():
            answer = self._accept(args=[self._max_open, queue, origin.request_id, origin.traceparent, *items])
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
                pipe.hmget(TASK + task_id, *_FIELDS, "fingerprint")
            found = cast("list[list[bytes | None]]", pipe.execute())
        return {
            task_id: Known(_task(task_id, values), fingerprint.decode())
            for task_id, (*values, fingerprint) in zip(task_ids, found, strict=True)
            if fingerprint
        }

    def take_seq(self) -> int:
        """Return the next place in the order of requests."""
        with redis_errors():
            return int(cast("int", self._take_seq()))

    def begin(self, task_id: str) -> Claim | None:
        """Mark the task as running and return its work; None when there is none to do now.

        There is none for a task that is closed or unknown, nor for one whose host has all its places taken: that one
        waits, pending, without a message, until a `leave` or `wake` returns it.
        """
        with redis_errors():
            answer = self._begin(args=[task_id, self._places.most, self._lease_ms])
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

    def leave(self, host: str, task_id: str) -> list[Sent]:
        """Give up the task's place at its host; return the tasks that wait for it no longer, to be sent now."""
        with redis_errors():
            answer = self._leave(args=[host, self._places.most, WOKEN_MOST, self._lease_ms, task_id, *QUEUES])
        now, woken = cast("tuple[int, list[bytes]]", answer)
        return [
            Sent(task_id=task_id.decode(), queue=queue.decode(), at=now)
            for task_id, queue in zip(woken[::2], woken[1::2], strict=True)
        ]

    def wake(self, host: str) -> list[Sent]:
        """Return the tasks, to be sent now, for which the host has got places without anybody leaving."""
        return self.leave(host, "")

    def crowded_hosts(self, *, limit: int) -> list[str]:
        """Return hosts that tasks wait for, any of them."""
        with redis_errors():
            found = cast("list[bytes]", self._redis.srandmember(CROWDED, limit))
        return [host.decode() for host in found]

    def risk(self, task_id: str, *, after: str = "") -> int:
        """Count one more entry into the decoder, and return how many were not survived, this one included.

        `after` is the task whose picture left the same decoder before: that one is survived.
        """
        with redis_errors():
            return int(cast("int", self._risk(args=[task_id, after])))

    def survived(self, task_ids: Sequence[str]) -> None:
        """Forget the entries into the decoder: these pictures do not kill their worker."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for task_id in task_ids:
                pipe.hdel(TASK + task_id, "risks")
            pipe.execute()

    def give_back(self, task_id: str) -> None:
        """Mark a running task as pending again: its worker could not finish it now."""
        with redis_errors():
            self._give_back(args=[task_id])

    def close(self, closings: Sequence[Closing]) -> int:
        """End tasks and tell who waits for them; return how many callbacks had to be dropped: too many wait.

        One that is closed already keeps its first end, save that of a failure that another delivery made good.
        """
        if not closings:
            return 0
        items = [part for end in closings for part in (end.task_id, end.state.value, end.code, end.error)]
        with redis_errors():
            kept = (self._finished_keep_s, self._failed_keep_s, self._max_callbacks_bytes)
            return int(cast("int", self._close(args=[*kept, *items])))

    def cancel(self, task_id: str) -> State | None:
        """Cancel the task if it is pending, tell who waits for it, and return the state that it was in.

        None for a task that is unknown or was forgotten.
        """
        with redis_errors():
            was = cast("bytes | None", self._cancel(args=[task_id, self._finished_keep_s, self._max_callbacks_bytes]))
        return State(was.decode()) if was else None

    def retry(self, task_ids: Sequence[str]) -> list[Sent | Refusal]:
        """Open failed tasks again, each with its old place in the order of requests.

        Returns in the order given what is to be sent now, or why a task stays as it is.
        """
        if not task_ids:
            return []
        with redis_errors():
            answer = self._retry(args=[self._failed_keep_s * 1000, *task_ids])
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
            values = cast("list[bytes | None]", self._redis.hmget(TASK + task_id, _FIELDS))
        return None if values[0] is None else _task(task_id, values)

    def page(
        self, state: State, *, limit: int, cursor: str | None = None, code: str | None = None, prefix: str = ""
    ) -> Page:
        """Return tasks of a state that is LISTED, the newest first, from where `cursor` says.

        `code` and `prefix` keep those that failed with this code, and whose filepath starts so. Newest are those that
        failed last or, of open ones, were last begun or sent. At most LOOKED_AT_MOST are looked at.

        Raises InputError for a cursor that no page gave.
        """
        score, after = _read_cursor(cursor)
        args = [LISTED[state], state.value, score, after, limit, LOOKED_AT_MOST, code or "", prefix, *_FIELDS]
        with redis_errors():
            rows, *going_on = cast("list[Any]", self._page(args=args))
        return Page(
            tasks=[_task(task_id.decode(), values) for task_id, values in rows],
            cursor=f"{int(going_on[0])}-{going_on[1].decode()}" if going_on else None,
        )

    def uploads_of(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Return the claim checks of those of these tasks that have an upload and may yet need it."""
        with redis_errors():
            jobs = self._hget_each(task_ids, "job")
        found = {
            task_id: AddJob.from_json(job.decode()).upload for task_id, job in zip(task_ids, jobs, strict=True) if job
        }
        return {task_id: upload for task_id, upload in found.items() if upload}

    def failed_after(self, at: int, *, limit: int) -> list[tuple[str, int]]:
        """Return ids of tasks that failed after `at` and when they did (ms since 1970), the oldest first."""
        with redis_errors():
            found = cast(
                "list[tuple[bytes, float]]",
                self._redis.zrangebyscore(FAILED, f"({at}", "+inf", start=0, num=limit, withscores=True),
            )
        return [(task_id.decode(), int(when)) for task_id, when in found]

    def empty(self, task_ids: Sequence[str]) -> list[str]:
        """Give up the uploads of those of these tasks that have failed, and return those: none is retried any more."""
        if not task_ids:
            return []
        with redis_errors():
            return [task_id.decode() for task_id in cast("list[bytes]", self._empty(args=task_ids))]

    def open_count(self) -> int:
        """Return how many tasks wait or run."""
        with redis_errors():
            return int(self._redis.zcard(OPEN))

    def sent_before(self, at: int, *, offset: int, limit: int) -> list[Sent]:
        """Return open tasks last sent before `at` (ms since 1970), the oldest first."""
        with redis_errors():
            found = cast(
                "list[tuple[bytes, float]]",
                self._redis.zrangebyscore(OPEN, "-inf", f"({at}", start=offset, num=limit, withscores=True),
            )
            queues = self._hget_each((task_id.decode() for task_id, _ in found), "queue")
        return [
            Sent(task_id=task_id.decode(), queue=queue.decode(), at=int(at))
            for (task_id, at), queue in zip(found, queues, strict=True)
            if queue is not None
        ]

    def restamp(self, tasks: Sequence[Sent], *, at: int) -> list[Sent]:
        """Note that these messages are sent again at `at`, and return those that are the caller's to send.

        The others were closed meanwhile, or somebody else was first.
        """
        if not tasks:
            return []
        with redis_errors():
            won = cast(
                "list[bytes]",
                self._restamp(args=[at, *(part for task in tasks for part in (task.task_id, task.at))]),
            )
        ours = {task_id.decode() for task_id in won}
        return [replace(task, at=at) for task in tasks if task.task_id in ours]

    def take_back_stamps(self, *, limit: int) -> int:
        """Stamp as sent now what seems to have been sent later, and return how many: Redis's clock was set back."""
        with redis_errors():
            return int(cast("int", self._take_back(args=[limit])))

    def forget_failed_before(self, at: int) -> None:
        """Drop from the list of failures what failed before `at` (ms since 1970); the tasks expire by themselves."""
        with redis_errors():
            self._redis.zremrangebyscore(FAILED, "-inf", f"({at}")

    def now_ms(self) -> int:
        """Return Redis's clock in milliseconds since 1970, the one by which tasks are stamped."""
        with redis_errors():
            seconds, micros = self._redis.time()
        return seconds * 1000 + micros // 1000

    def lease(self, name: str, *, for_s: float) -> bool:
        """Say whether this caller is the first to ask for `name` within `for_s` seconds."""
        with redis_errors():
            return bool(self._lease(args=[f"match:lease:{name}", int(for_s * 1000)]))

    def check(self) -> None:
        """Return when Redis answers."""
        with redis_errors():
            self._redis.ping()

    def _hget_each(self, task_ids: Iterable[str], name: str) -> list[bytes | None]:
        pipe = self._redis.pipeline(transaction=False)
        for task_id in task_ids:
            pipe.hget(TASK + task_id, name)
        return cast("list[bytes | None]", pipe.execute())


def _host(job: AddJob) -> str:
    if job.url is None:
        return ""
    try:
        return read_url(job.url).host
    except FetchError:
        # It will fail with its reason when it is fetched.
        return ""


def _read_cursor(cursor: str | None) -> tuple[str, str]:
    """Return the score and the id after which a page begins; both are empty for the first."""
    if cursor is None:
        return "", ""
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise InputError("cursor is none that a page of tasks gave", field="cursor")
    return match[1], match[2]


def _task(task_id: str, values: Sequence[bytes | None]) -> Task:
    return task_of(
        task_id, {name: value.decode() for name, value in zip(_FIELDS, values, strict=True) if value is not None}
    )
