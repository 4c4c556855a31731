"""Lists of tasks, page by page."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from common.collection_names import DEFAULT_COLLECTION
from common.errors import InputError
from common.queue import keys
from common.queue.batches import Batch
from common.queue.scripts import script
from common.queue.tasks import FIELDS, FORMER_CODES, State, Task, task_from
from common.redis.client import redis_errors

# Tasks that one page scans in each state. It limits the cost of a filter that matches few tasks.
MAX_SCANNED = 1000
MINUTE_MS = 60_000
# The last scanned task: its score and digest, or its minute and the position in its list. A list of all states begins
# with the state, from whose beginning it continues without a task.
CURSOR = re.compile(r"(?:(?P<state>[a-z]{1,16}):)?(?:(?P<score>[0-9]{1,16})-(?P<mark>[0-9a-f]{32}|[0-9]{1,12}))?")
DIGEST_DIGITS = 32
FROM_THE_END = -1
# The sorted sets of the states that have one. Other ended tasks are in lists by minute.
INDEXES: Mapping[State, str] = {State.RUNNING: keys.RUNNING, State.PENDING: keys.OPEN, State.FAILED: keys.FAILED}
# In the order of a list of all states.
LISTED = (*INDEXES, State.SUCCEEDED, State.SUPERSEDED, State.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """The tasks of a collection that a list has.

    `collection` is None for all, in a list of known tasks. `code` and `prefix` filter by error code and by the start of
    the filepath. `request_id` is that of their request.
    """

    collection: str | None = DEFAULT_COLLECTION
    code: str | None = None
    prefix: str = ""
    batch: Batch | None = None
    request_id: str = ""

    def matches(self, task: Task) -> bool:
        """Return whether the list has the task, if it has its state."""
        return (
            self.collection in {None, task.collection}
            and self.code in {None, task.code}
            and task.filepath.startswith(self.prefix)
            and (self.batch is None or task.batch == self.batch.id)
            and self.request_id in {"", task.request_id}
        )


ANY = TaskFilter()


@dataclass(frozen=True, slots=True)
class _Position:
    """The place of the last scanned task; empty texts for the begin of a list."""

    state: State | None = None
    score: str = ""
    mark: str = ""


START = _Position()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Tasks, the newest of each state first, and the cursor of the next page; None at the end.

    With a filter a page may be short or empty although more pages follow.
    """

    tasks: list[Task]
    cursor: str | None


class TaskPages:
    """Lists the tasks of one state or of all."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._page = script(redis, "page")
        self._ended_page = script(redis, "ended_page")

    def page(self, state: State | None, *, limit: int, cursor: str | None = None, only: TaskFilter = ANY) -> Page:
        """Return tasks in this state, the newest first, after `cursor`; without a state, those of all states in turn.

        Ended tasks are ordered by the time of their end, running ones by their start, pending ones by the time of
        enqueueing. A call scans at most MAX_SCANNED tasks of each state.

        Raises InputError for a cursor that no page returned, QueueUnavailable when Redis does not answer and QueueError
        when it rejects the command.
        """
        after = _read_cursor(cursor)
        states = list(LISTED if state is None else (state,))
        if state is None and after.state is not None:
            states = states[states.index(after.state) :]
        tasks: list[Task] = []
        for number, each in enumerate(states):
            listed, position = self._page_of(each, after, limit - len(tasks), only)
            tasks += listed
            after = START
            if position is not None:
                return Page(tasks=tasks, cursor=position if state is not None else f"{each.value}:{position}")
            if len(tasks) == limit and number + 1 < len(states):
                return Page(tasks=tasks, cursor=f"{states[number + 1].value}:")
        return Page(tasks=tasks, cursor=None)

    def _page_of(self, state: State, after: _Position, limit: int, only: TaskFilter) -> tuple[list[Task], str | None]:
        """Return tasks in one state, and the position of the last one unless the list ends."""
        find = self._indexed if state in INDEXES else self._ended
        with redis_errors():
            rows, position = find(state, after, limit, only)
        return [task_from(task_id.decode(), values) for task_id, values in rows], position

    def _indexed(self, state: State, after: _Position, limit: int, only: TaskFilter) -> tuple[list[Any], str | None]:
        if after.mark and len(after.mark) != DIGEST_DIGITS:
            raise _unknown_cursor()
        key, batch = INDEXES[state], only.batch
        reply = self._page(
            *FIELDS,
            state_key=key,
            state=state.value,
            score=after.score,
            id=self._find(key, after) if after.mark else "",
            code=only.code or "",
            former_code=FORMER_CODES.get(only.code or "", ""),
            oldest=0 if batch is None else batch.accepted,
            newest="+inf" if batch is None or batch.ended is None else batch.ended,
            **_parameters(limit, only),
        )
        rows, *position = cast("list[Any]", reply)
        return rows, f"{int(position[0])}-{_digest(position[1])}" if position else None

    def _ended(self, state: State, after: _Position, limit: int, only: TaskFilter) -> tuple[list[Any], str | None]:
        if len(after.mark) == DIGEST_DIGITS:
            raise _unknown_cursor()
        batch = only.batch
        newest = "+inf" if batch is None or batch.ended is None else f"{batch.ended // MINUTE_MS}"
        reply = self._ended_page(
            *FIELDS,
            state=state.value,
            minute=after.score or newest,
            position=after.mark or FROM_THE_END,
            oldest="-inf" if batch is None else batch.accepted // MINUTE_MS,
            **_parameters(limit, only),
        )
        rows, *position = cast("list[Any]", reply)
        return rows, f"{int(position[0])}-{position[1]}" if position else None

    def _find(self, key: str, after: _Position) -> str:
        """Return the id of the task at this position; the digest itself, which is not an id, if it left."""
        ids = cast("list[bytes]", self._redis.zrangebyscore(key, after.score, after.score))
        return next((task_id.decode() for task_id in ids if _digest(task_id) == after.mark), after.mark)


def _parameters(limit: int, only: TaskFilter) -> dict[str, str | float]:
    """Return the values that both scripts take."""
    return {
        "limit": limit,
        "max_scanned": MAX_SCANNED,
        "collection": only.collection or DEFAULT_COLLECTION,
        "filepath_prefix": only.prefix,
        "batch": "" if only.batch is None else only.batch.id,
        "request_id": only.request_id,
    }


def _digest(task_id: bytes) -> str:
    """Return a digest for a cursor: its task may be of another collection, whose ids the client must not know."""
    return hashlib.sha256(task_id).hexdigest()[:DIGEST_DIGITS]


def _read_cursor(cursor: str | None) -> _Position:
    if cursor is None:
        return START
    match = CURSOR.fullmatch(cursor)
    state = match["state"] if match else None
    if match is None or state not in {None, *LISTED}:
        raise _unknown_cursor()
    return _Position(State(state) if state else None, match["score"] or "", match["mark"] or "")


def _unknown_cursor() -> InputError:
    return InputError("cursor: not one that a list of tasks returned", field="cursor")
