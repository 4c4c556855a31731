"""Lists of tasks, page by page."""

import re
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from common.errors import InputError
from common.queue import keys
from common.queue.scripts import script
from common.queue.tasks import FIELDS, FORMER_CODES, NEW_CODES, State, Task, task_from
from common.redis.client import redis_errors

# Tasks looked at for one page: a filter that matches few costs each request no more than that.
MAX_SCANNED = 1000
CURSOR = re.compile(r"([0-9]{1,16})-([0-9a-f]{32})")
# The states that are listed; tasks that ended well are kept, but not listed.
LISTED = {State.FAILED: keys.FAILED, State.PENDING: keys.OPEN, State.RUNNING: keys.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some tasks of one state, the newest first, and the cursor to go on from; None at the end.

    With a filter a page may be short or empty although others follow.
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
        """Return tasks of a state that is LISTED, the newest first, from `cursor` on.

        `code` and `prefix` keep those that failed with this code, and whose filepath starts so. The newest are those
        that failed last or, of open ones, were last begun or enqueued. At most MAX_SCANNED are looked at.

        Raises InputError for a cursor that no page returned, QueueUnavailable when Redis does not answer and QueueError
        when it refuses.
        """
        score, after = _read_cursor(cursor)
        code = NEW_CODES.get(code or "", code or "")
        with redis_errors():
            reply = self._page(
                *FIELDS,
                state_key=LISTED[state],
                state=state.value,
                score=score,
                id=after,
                limit=limit,
                max_scanned=MAX_SCANNED,
                code=code,
                former_code=FORMER_CODES.get(code, ""),
                filepath_prefix=prefix,
            )
        rows, *position = cast("list[Any]", reply)
        return Page(
            tasks=[task_from(task_id.decode(), values) for task_id, values in rows],
            cursor=f"{int(position[0])}-{position[1].decode()}" if position else None,
        )


def _read_cursor(cursor: str | None) -> tuple[str, str]:
    """Return the score and the id after which a page begins; both are empty for the first."""
    if cursor is None:
        return "", ""
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise InputError("cursor: not one that a list of tasks returned", field="cursor")
    return match[1], match[2]
