"""Accepted work in Redis: the state of each task, the order of all requests, and what is still open.

The queue alone may lose a message (a worker that dies between taking it and noting it); the ledger never does. A task
is written here before its message is sent and closed here after the store has confirmed it, so whatever stays open too
long is sent again (`workers.sweeper`).

Keys, all under `match:`

- `task:<id>`: hash, the task itself
- `open`: sorted set of open tasks by the time they were last sent (ms)
- `failed`: sorted set of failed tasks by the time they failed (ms)
- `seq`: the last place given in the order of requests
- `closed`: channel on which the id of each closed task is published
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from redis import Redis

from common.errors import Overloaded
from common.jobs import AddJob
from common.redis_client import RETRY_AFTER_S, redis_errors

CLOSED_CHANNEL = "match:closed"
OPEN = "match:open"
FAILED = "match:failed"
SEQ = "match:seq"
TASK = "match:task:"


class State(StrEnum):
    """The life of a task: pending → running → one of the rest."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    CANCELLED = "cancelled"


CLOSED_STATES = frozenset({State.SUCCEEDED, State.SUPERSEDED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as a client sees it.

    Times are in milliseconds since 1970 (UTC); `attempts` counts how often a worker began it.
    """

    id: str
    state: State
    filepath: str
    seq: int
    accepted: int
    started: int | None = None
    finished: int | None = None
    attempts: int = 0
    code: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a worker needs to do the work of one task."""

    task_id: str
    seq: int
    job: AddJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The end of a task; a failed one has a `code` and an `error`."""

    task_id: str
    state: State
    code: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An open task and when its message was last sent (ms since 1970), and to which queue."""

    task_id: str
    queue: str
    at: int


# A clock of microseconds that never goes back: after a loss of data it is still ahead of every place given before,
# where a plain counter would start again at 1; after a clock set back it counts on from the last place.
_NEXT_SEQ = """
local function next_seq(key, count)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local first = math.max((tonumber(redis.call('GET', key)) or 0) + 1, now)
  redis.call('SET', key, string.format('%.0f', first + count - 1))
  return first
end
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

_TAKE_SEQ = _NEXT_SEQ + "return next_seq(KEYS[1], 1)"

# KEYS: seq, open. ARGV: task prefix, most open tasks, queue, then id, filepath and job of each task.
_ACCEPT = (
    _NEXT_SEQ
    + """
local count = (#ARGV - 3) / 3
if redis.call('ZCARD', KEYS[2]) + count > tonumber(ARGV[2]) then return false end
local first, now = next_seq(KEYS[1], count), now_ms()
for i = 0, count - 1 do
  local id = ARGV[4 + 3 * i]
  redis.call('HSET', ARGV[1] .. id, 'state', 'pending', 'filepath', ARGV[5 + 3 * i], 'job', ARGV[6 + 3 * i],
    'queue', ARGV[3], 'seq', string.format('%.0f', first + i), 'accepted', now)
  redis.call('ZADD', KEYS[2], now, id)
end
return {first, now}
"""
)

# KEYS: task. Nothing is returned for a task that is closed or unknown: there is no work left.
_BEGIN = (
    _NEXT_SEQ
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'pending' and state ~= 'running' then return false end
redis.call('HSET', KEYS[1], 'state', 'running', 'started', now_ms())
redis.call('HINCRBY', KEYS[1], 'attempts', 1)
return redis.call('HMGET', KEYS[1], 'seq', 'job')
"""
)

_RISK = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return redis.call('HINCRBY', KEYS[1], 'risks', 1)
"""

_GIVE_BACK = """
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return end
redis.call('HSET', KEYS[1], 'state', 'pending')
"""

# KEYS: open, failed. ARGV: task prefix, channel, seconds to keep finished and failed tasks,
# then id, state, code and error of each task.
_CLOSE = (
    _NEXT_SEQ
    + """
local now = now_ms()
for i = 5, #ARGV, 4 do
  local id, state = ARGV[i], ARGV[i + 1]
  local key = ARGV[1] .. id
  local was = redis.call('HGET', key, 'state')
  local stored_after_all = was == 'failed' and (state == 'succeeded' or state == 'superseded')
  if stored_after_all then
    redis.call('HDEL', key, 'code', 'error')
    redis.call('ZREM', KEYS[2], id)
  end
  if was == 'pending' or was == 'running' or stored_after_all then
    redis.call('HSET', key, 'state', state, 'finished', now)
    if state == 'failed' then
      redis.call('HSET', key, 'code', ARGV[i + 2], 'error', ARGV[i + 3])
      redis.call('ZADD', KEYS[2], now, id)
      redis.call('EXPIRE', key, ARGV[4])
    else
      redis.call('EXPIRE', key, ARGV[3])
    end
  end
  redis.call('ZREM', KEYS[1], id)
  redis.call('PUBLISH', ARGV[2], id)
end
"""
)


class Ledger:
    """The one place that knows which work was accepted and what became of it.

    Every method raises QueueUnavailable when Redis does not answer and QueueError when it refuses.
    """

    def __init__(self, redis: Redis, *, max_open: int, finished_keep_s: int, failed_keep_s: int) -> None:
        self._redis = redis
        self._max_open = max_open
        self._finished_keep_s = finished_keep_s
        self._failed_keep_s = failed_keep_s
        self._take_seq = redis.register_script(_TAKE_SEQ)
        self._accept = redis.register_script(_ACCEPT)
        self._begin = redis.register_script(_BEGIN)
        self._risk = redis.register_script(_RISK)
        self._give_back = redis.register_script(_GIVE_BACK)
        self._close = redis.register_script(_CLOSE)

    def accept(self, jobs: Sequence[AddJob], *, queue: str) -> list[Task]:
        """Write one pending task a job, all or none, each with its place in the order of requests.

        Raises Overloaded when more than `max_open` tasks would be open.
        """
        ids = [secrets.token_hex(16) for _ in jobs]
        items = [
            part for task_id, job in zip(ids, jobs, strict=True) for part in (task_id, job.filepath, job.to_json())
        ]
        with redis_errors():
            answer = self._accept(keys=[SEQ, OPEN], args=[TASK, self._max_open, queue, *items])
        if answer is None:
            raise Overloaded("too many pictures are waiting", retry_after=RETRY_AFTER_S)
        first, now = cast("tuple[int, int]", answer)
        return [
            Task(id=task_id, state=State.PENDING, filepath=job.filepath, seq=first + place, accepted=now)
            for place, (task_id, job) in enumerate(zip(ids, jobs, strict=True))
        ]

    def take_seq(self) -> int:
        """Return the next place in the order of requests."""
        with redis_errors():
            return int(cast("int", self._take_seq(keys=[SEQ])))

    def begin(self, task_id: str) -> Claim | None:
        """Mark the task as running and return its work; None when there is none left."""
        with redis_errors():
            answer = self._begin(keys=[TASK + task_id])
        if answer is None:
            return None
        seq, job = cast("tuple[bytes, bytes]", answer)
        return Claim(task_id=task_id, seq=int(seq), job=AddJob.from_json(job.decode()))

    def risk(self, task_id: str) -> int:
        """Count one more entry into the decoder, and return how many were not survived, this one included."""
        with redis_errors():
            return int(cast("int", self._risk(keys=[TASK + task_id])))

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
            self._give_back(keys=[TASK + task_id])

    def close(self, closings: Sequence[Closing]) -> None:
        """End tasks and tell who waits for them.

        One that is closed already keeps its first end, save that of a failure that another delivery made good.
        """
        if not closings:
            return
        items = [part for end in closings for part in (end.task_id, end.state.value, end.code, end.error)]
        args: list[str | int] = [TASK, CLOSED_CHANNEL, self._finished_keep_s, self._failed_keep_s, *items]
        with redis_errors():
            self._close(keys=[OPEN, FAILED], args=args)

    def task(self, task_id: str) -> Task | None:
        """Return the task, or None when it is unknown or was forgotten."""
        with redis_errors():
            fields = cast("dict[bytes, bytes]", self._redis.hgetall(TASK + task_id))
        return _task(task_id, {name.decode(): value.decode() for name, value in fields.items()}) if fields else None

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

    def mark_sent(self, task_ids: Sequence[str], *, at: int) -> None:
        """Note that the messages of these tasks are sent again; what was closed meanwhile stays closed."""
        with redis_errors():
            self._redis.zadd(OPEN, dict.fromkeys(task_ids, at), xx=True)

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
            return bool(self._redis.set(f"match:lease:{name}", 1, nx=True, px=int(for_s * 1000)))

    def check(self) -> None:
        """Return when Redis answers."""
        with redis_errors():
            self._redis.ping()

    def _hget_each(self, task_ids: Iterable[str], name: str) -> list[bytes | None]:
        pipe = self._redis.pipeline(transaction=False)
        for task_id in task_ids:
            pipe.hget(TASK + task_id, name)
        return cast("list[bytes | None]", pipe.execute())


def _task(task_id: str, fields: dict[str, str]) -> Task:
    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    known: dict[str, Any] = {
        "started": number("started"),
        "finished": number("finished"),
        "attempts": number("attempts") or 0,
        "code": fields.get("code") or None,
        "error": fields.get("error") or None,
    }
    return Task(
        id=task_id,
        state=State(fields["state"]),
        filepath=fields["filepath"],
        seq=int(fields["seq"]),
        accepted=int(fields["accepted"]),
        **known,
    )
