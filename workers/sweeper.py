"""Enqueues stale tasks again: those that are open although their message must be lost."""

import json
import logging
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, cast

from redis import Redis

from common.errors import MatchError
from common.queue.jobs import QUEUES, SENT_HEADER, front_of
from common.queue.keys import UNACKED, UNACKED_INDEX
from common.queue.leases import Leases
from common.queue.stale_tasks import StaleTasks
from common.queue.tasks import QueuedTask
from common.redis.client import redis_errors
from common.redis.clock import now_ms
from workers.host_limiter import HostLimiter
from workers.retention import Retention

log = logging.getLogger(__name__)

# Tasks in one step.
PAGE = 500
# Steps in one pass: the next pass continues where this one ended.
MAX_PAGES = 20
# Messages, oldest first, in which to look for one with the time at which it was enqueued.
MAX_PEEKS = 10

PURGE_EVERY_S = 600.0


def lost(
    open_tasks: Iterable[QueuedTask], waiting_since: Mapping[str, int | None], unacked: Collection[str] = frozenset()
) -> list[QueuedTask]:
    """Return the tasks whose message is neither in its queue nor `unacked`, held by a worker.

    `waiting_since` is when the oldest message of each queue was enqueued (ms), None where the queue is empty. A queue
    is consumed in order, so a task that was enqueued before its oldest message is not in it any more. A long backlog is
    not a loss.
    """
    return [
        task
        for task in open_tasks
        if task.task_id not in unacked
        and ((since := waiting_since.get(task.queue)) is None or task.enqueued_at < since)
    ]


class Sweeper:
    """One pass every `every_s` seconds by one of all workers.

    It looks for the messages of open tasks that were enqueued `lost_after_s` ago. `batch` is the most that one pass
    enqueues. Two passes at once enqueue nothing twice.
    """

    def __init__(  # noqa: PLR0913 - the options are named at every call
        self,
        redis: Redis,
        stale: StaleTasks,
        leases: Leases,
        send: Callable[[Sequence[str], str, int], None],
        *,
        host_limiter: HostLimiter,
        retention: Retention,
        every_s: float,
        lost_after_s: float,
        batch: int,
    ) -> None:
        self._redis = redis
        self._stale = stale
        self._leases = leases
        self._send = send
        self._host_limiter = host_limiter
        self._retention = retention
        self._every_s = every_s
        self._lost_after_ms = int(lost_after_s * 1000)
        self._batch = batch
        self._offset = 0
        self._stop = Event()
        self._thread = Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> int:
        """Enqueue lost tasks again, and return how many."""
        while self._stale.reset_future_timestamps(limit=PAGE) == PAGE:
            pass
        now = now_ms(self._redis)
        waiting_since = {queue: self._oldest(queue, now) for queue in QUEUES}
        sent = 0
        for _ in range(MAX_PAGES):
            limit = min(PAGE, self._batch - sent)
            old = self._stale.enqueued_before(now - self._lost_after_ms, offset=self._offset, limit=limit)
            missing = lost(old, waiting_since)
            missing = lost(missing, waiting_since, self._unacked()) if missing else []
            sent += self._enqueue(missing, now)
            # What was enqueued again is not in this place of the list any more.
            self._offset = self._offset + len(old) - len(missing) if len(old) == limit else 0
            if len(old) < limit or sent >= self._batch:
                break
        return sent

    def _enqueue(self, tasks: Sequence[QueuedTask], now: int) -> int:
        # Touched first: a crash in between delays these tasks, in the other order it would enqueue them twice.
        touched = self._stale.touch(tasks, at=now)
        for task in touched:
            self._send([task.task_id], task.queue, now)
        return len(touched)

    def _oldest(self, queue: str, now: int) -> int | None:
        """Return when the oldest message of the queue and its front queue was enqueued (ms); None if both are empty.

        0 where that is unknown: the message has no time, or one later than now.
        """
        with redis_errors():
            messages = [
                message
                for name in (queue, front_of(queue))
                for message in cast("list[bytes]", self._redis.lrange(name, -MAX_PEEKS, -1))
            ]
        times = [at for message in messages if (at := _enqueued_at(message)) is not None]
        if not times or min(times) > now:
            return 0 if messages else None
        return min(times)

    def _unacked(self) -> set[str]:
        """Return the ids of the tasks whose message a worker holds; kombu restores them if it died.

        kombu does not restore a message that only the hash has, left by an incomplete acknowledgement.
        """
        with redis_errors():
            tags = cast("list[bytes]", self._redis.zrange(UNACKED_INDEX, 0, -1))
            messages = cast("list[bytes | None]", self._redis.hmget(UNACKED, tags)) if tags else []
        return {task_id for message in messages if message is not None for task_id in _tasks_of(message)}

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            with _continuing():
                if self._leases.acquire("sweep", for_s=0.9 * self._every_s):
                    self._pass()
            with _continuing():
                if self._leases.acquire("purge", for_s=PURGE_EVERY_S):
                    self._retention.purge()

    def _pass(self) -> None:
        # First: it works with a full Redis, and everything else may need the space.
        with _continuing():
            if evicted := self._retention.evict_uploads():
                log.warning("evicted the uploads of %d old failures: little space is left", evicted)
        with _continuing():
            self._host_limiter.admit_waiting()
        if count := self.sweep():
            log.warning("enqueued %d lost tasks again", count)


@contextmanager
def _continuing() -> Iterator[None]:
    """Log any error, so that the other steps run: without them lost tasks stay lost."""
    try:
        yield
    except MatchError as error:
        log.warning("sweep failed, the next one will try again: %s", error)
    except Exception:
        log.exception("unexpected error in a sweep")


def _enqueued_at(message: bytes) -> int | None:
    """Return when a queued message was enqueued, None where it does not have that or is not a task's."""
    try:
        return int(json.loads(message)["headers"][SENT_HEADER])
    except (ValueError, TypeError, LookupError):
        return None


def _tasks_of(message: bytes) -> list[str]:
    """Return the tasks of a message that a worker holds; none where it is not a task's."""
    try:
        # [message, exchange, routing key]; the message's body is [positional arguments, named ones, options].
        body: Any = json.loads(b64decode(json.loads(message)[0]["body"]))
        task_ids = body[0][0]
    except (ValueError, TypeError, LookupError):
        return []
    return task_ids if isinstance(task_ids, list) else [str(task_ids)]
