"""Lists of tasks, page by page."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from common.collection_names import DEFAULT_COLLECTION
from common.errors import InputError
from common.queue import keys
from common.queue.scripts import script
from common.queue.tasks import FIELDS, FORMER_CODES, State, Task, task_from
from common.redis.client import redis_errors

# Tasks that one page scans. It limits the cost of a filter that matches few tasks.
MAX_SCANNED = 1000
CURSOR = re.compile(r"([0-9]{1,16})-([0-9a-f]{32})")
DIGEST_DIGITS = 32
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
        self._redis = redis
        self._page = script(redis, "page")

    def page(  # noqa: PLR0913 - the options are keyword arguments
        self,
        state: State,
        *,
        limit: int,
        collection: str = DEFAULT_COLLECTION,
        cursor: str | None = None,
        code: str | None = None,
        prefix: str = "",
    ) -> Page:
        """Return tasks of the collection in one of the LISTED states, the newest first, after `cursor`.

        `code` and `prefix` filter by error code and by the start of the filepath. Failed tasks are ordered by the time
        of the failure, running ones by their start, pending ones by the time of enqueueing. A call scans at most
        MAX_SCANNED tasks.

        Raises InputError for a cursor that no page returned, QueueUnavailable when Redis does not answer and QueueError
        when it rejects the command.
        """
        score, digest = _read_cursor(cursor)
        with redis_errors():
            after = self._find(LISTED[state], score, digest) if score else ""
            reply = self._page(
                *FIELDS,
                state_key=LISTED[state],
                state=state.value,
                collection=collection,
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
            cursor=f"{int(position[0])}-{_digest(position[1])}" if position else None,
        )

    def _find(self, key: str, score: str, digest: str) -> str:
        """Return the id of the task with this score and digest; the digest itself, which is not an id, if it left."""
        ids = cast("list[bytes]", self._redis.zrangebyscore(key, score, score))
        return next((task_id.decode() for task_id in ids if _digest(task_id) == digest), digest)


def _digest(task_id: bytes) -> str:
    """Return a digest for a cursor: its task may be of another collection, whose ids the client must not know."""
    return hashlib.sha256(task_id).hexdigest()[:DIGEST_DIGITS]


def _read_cursor(cursor: str | None) -> tuple[str, str]:
    """Return the score and the digest of the last task before the page; both are empty for the first page."""
    if cursor is None:
        return "", ""
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise InputError("cursor: not one that a list of tasks returned", field="cursor")
    return match[1], match[2]
