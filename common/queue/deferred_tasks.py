"""Deferred tasks: pending tasks that wait for their host without a message, until their next try or a free slot."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from redis import Redis

from common.collection_names import DEFAULT_COLLECTION
from common.queue import keys
from common.queue.host_limits import LONGEST_RETRY_AFTER_MS
from common.queue.scripts import script
from common.queue.tasks import QueuedTask, queued_tasks
from common.redis.client import redis_errors

# Tasks, and hosts, that one call finds.
LIMIT = 500
# Deferred tasks of a page.
PAGE = 500
# Time after which another worker may take a host that a worker has taken.
HOST_CLAIM_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Tasks to enqueue now, and hosts whose waiting tasks may begin.

    `next_in_s` is the time until another task or host is due; None without one.
    """

    tasks: list[QueuedTask]
    hosts: list[str]
    next_in_s: float | None


class DeferredTasks:
    """The deferred tasks of all hosts; any number of workers may call `take_due`, and each task is found once.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._forget = script(redis, "forget_deferred")
        self._take_due = script(
            redis,
            "take_due",
            limit=LIMIT,
            longest_deferral_ms=LONGEST_RETRY_AFTER_MS + 60_000,
            host_claim_ms=int(HOST_CLAIM_S * 1000),
        )

    def take_due(self) -> Due:
        """Return what is due; at most LIMIT tasks and hosts."""
        with redis_errors():
            now, tasks, hosts, next_ms = cast("tuple[int, list[bytes], list[bytes], int]", self._take_due())
        return Due(
            tasks=queued_tasks(tasks, at=now),
            hosts=[host.decode() for host in hosts],
            next_in_s=max(0.0, (int(next_ms) - now) / 1000) if next_ms else None,
        )

    def end_waits(self, collection: str, *, before: int) -> None:
        """Let tasks of a collection begin now whose sequence number is below `before`, without waiting for their host.

        They were accepted before the collection was deleted: they end without a download.
        """
        for task_ids in self._pages():
            with redis_errors():
                pipe = self._redis.pipeline(transaction=False)
                for task_id in task_ids:
                    pipe.hmget(keys.TASK + task_id, "collection", "seq")
                fields = cast("list[tuple[bytes | None, bytes | None]]", pipe.execute())
                due = {
                    task_id: 0
                    for task_id, (name, seq) in zip(task_ids, fields, strict=True)
                    if (name or DEFAULT_COLLECTION.encode()) == collection.encode() and int(seq or 0) < before
                }
                if due:
                    self._redis.zadd(keys.DEFERRED, due, xx=True)

    def purge(self) -> int:
        """Forget tasks that a worker of an earlier version has ended, and return their number."""
        forgotten = 0
        for task_ids in self._pages():
            with redis_errors():
                forgotten += int(cast("int", self._forget(*task_ids)))
        return forgotten

    def _pages(self) -> Iterator[list[str]]:
        """Yield the ids of all deferred tasks, page by page; one may be repeated."""
        cursor = -1
        while cursor != 0:
            with redis_errors():
                reply = self._redis.zscan(keys.DEFERRED, max(0, cursor), count=PAGE)
            cursor, rows = cast("tuple[int, list[tuple[bytes, float]]]", reply)
            if rows:
                yield [task_id.decode() for task_id, _ in rows]
