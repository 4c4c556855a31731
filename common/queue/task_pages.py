"""Lists of tasks, page by page."""

import re
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from common.errors import InputError
from common.queue import keys
from common.queue.scripts import script
from common.queue.tasks import FIELDS, FORMER_CODES, State, Task, task_from
from common.redis.client import redis_errors

# Tasks that one page scans. It limits the cost of a filter that matches few tasks.
MAX_SCANNED = 1000
CURSOR = re.compile(r"([0-9]{1,16})-([0-9a-f]{32})")
# The states that can be listed. No index of successful tasks exists.
LISTED = {State.FAILED: keys.FAILED, State.PENDING: keys.OPEN, State.RUNNING: keys.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Tasks of one state, the newest first, and the cursor of the next page; None at the end.

    With a filter a page may be short or empty although more pages follow.
    """

    tasks: list[Task]
    cursor: str | None


class TaskPages:
    """Lists the tasks of a state."""

    def __init__(self, redis: Redis) -> None:
        self._page = script(redis, "page")

    def page(
        self, state: State, *, limit: int, cursor: str | None = None, code: str | None = None, prefix: str = ""
    ) -> Page:
        """Return tasks of one of the LISTED states, the newest first, after `cursor`.

        `code` and `prefix` filter by error code and by the start of the filepath. Failed tasks are ordered by the time
        of the failure, running ones by their start, pending ones by the time of enqueueing. A call scans at most
        MAX_SCANNED tasks.

        Raises InputError for a cursor that no page returned, QueueUnavailable when Redis does not answer and QueueError
        when it rejects the command.
        """
        score, after = _read_cursor(cursor)
        with redis_errors():
            reply = self._page(
                *FIELDS,
                state_key=LISTED[state],
                state=state.value,
                score=score,
                id=after,
                limit=limit,
                max_scanned=MAX_SCANNED,
                code=code or "",
                former_code=FORMER_CODES.get(code or "", ""),
                filepath_prefix=prefix,
            )
        rows, *position = cast("list[Any]", reply)
        return Page(
            tasks=[task_from(task_id.decode(), values) for task_id, values in rows],
            cursor=f"{int(position[0])}-{position[1].decode()}" if position else None,
        )


def _read_cursor(cursor: str | None) -> tuple[str, str]:
    """Return the score and the id of the last task before the page; both are empty for the first page."""
    if cursor is None:
        return "", ""
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise InputError("cursor: not one that a list of tasks returned", field="cursor")
    return match[1], match[2]
