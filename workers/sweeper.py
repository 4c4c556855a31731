"""The sweeper: enqueues open tasks again whose message is lost."""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import cast

from redis import Redis

from common.queue.jobs import ENQUEUED_AT_HEADER, QUEUES, front_queue
from common.queue.leases import Leases
from common.queue.stale_tasks import StaleTasks
from common.queue.tasks import QueuedTask
from common.queue.unacked import Unacked
from common.redis.client import redis_errors
from common.redis.clock import now_ms
from workers.host_limiter import HostLimiter
from workers.repeating import ErrorLog, Repeating
from workers.retention import Retention

log = logging.getLogger(__name__)

ERRORS = ErrorLog(
    log=log, failed="sweep failed, the next one will try again: %s", unexpected="unexpected error in a sweep"
)

# Tasks per step.
PAGE = 500
# Maximum number of steps in one pass; the next pass continues at the same offset.
MAX_PAGES = 20
# The oldest messages of a queue, of which one should have the header with the time of enqueueing.
MAX_PEEKS = 10

PURGE_EVERY_S = 600.0
# Age at which a task without a message is lost, when a worker has just died. The API sends a message within
# milliseconds, and a dead worker received its last one at least this long ago.
LOST_AFTER_DEATH_S = 5.0


def lost(
    open_tasks: Iterable[QueuedTask], waiting_since: Mapping[str, int | None], unacked: Collection[str] = frozenset()
) -> list[QueuedTask]:
    """Return the tasks whose message is neither in its queue nor unacknowledged, which `unacked` lists.

    `waiting_since` is the time at which the oldest message of each queue was enqueued (ms), None for an empty queue. A
    queue is consumed in order, so it does not contain a task that was enqueued before its oldest message.
    """
    return [
        task
        for task in open_tasks
        if task.task_id not in unacked
        and ((since := waiting_since.get(task.queue)) is None or task.enqueued_at < since)
    ]


class Sweeper(Repeating):
    """Makes a pass every `every_s` seconds in one of all workers.

    A pass checks the messages of open tasks that were enqueued at least `lost_after_s` ago. It enqueues at most `batch`
    tasks. Concurrent passes do not enqueue a task twice.
    """

    def __init__(  # noqa: PLR0913 - the options are keyword arguments
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
        super().__init__("sweeper", ERRORS, every_s=every_s)
        self._redis = redis
        self._stale = stale
        self._unacked = Unacked(redis)
        self._leases = leases
        self._send = send
        self._host_limiter = host_limiter
        self._retention = retention
        self._lost_after_ms = int(lost_after_s * 1000)
        self._batch = batch
        self._offset = 0

    def sweep(self) -> int:
        """Enqueue lost tasks again, and return their number."""
        while self._stale.reset_future_timestamps(limit=PAGE) == PAGE:
            pass
        sent, self._offset = self._sweep(self._lost_after_ms, self._offset, lambda queue: queue)
        return sent

    def sweep_after_death(self) -> int:
        """Enqueue tasks again whose message was lost with a worker, and return their number.

        Their messages precede all others. Call this before the dead worker's messages return to their queues: after
        that, older messages than the lost ones may wait there.
        """
        sent, _ = self._sweep(int(LOST_AFTER_DEATH_S * 1000), 0, front_queue)
        return sent

    def _sweep(self, lost_after_ms: int, offset: int, queue_for: Callable[[str], str]) -> tuple[int, int]:
        """Enqueue lost tasks again from this position of the list; return their number and the next position."""
        now = now_ms(self._redis)
        waiting_since = {queue: self._oldest(queue, now) for queue in QUEUES}
        sent = 0
        for _ in range(MAX_PAGES):
            limit = min(PAGE, self._batch - sent)
            old = self._stale.enqueued_before(now - lost_after_ms, offset=offset, limit=limit)
            missing = lost(old, waiting_since)
            missing = lost(missing, waiting_since, self._unacked.task_ids()) if missing else []
            sent += self._enqueue(missing, now, queue_for)
            # Tasks that were enqueued again have left this part of the list.
            offset = offset + len(old) - len(missing) if len(old) == limit else 0
            if len(old) < limit or sent >= self._batch:
                break
        return sent, offset

    def _enqueue(self, tasks: Sequence[QueuedTask], now: int, queue_for: Callable[[str], str]) -> int:
        # Touch first: a crash in between delays these tasks, while the other order would enqueue them twice.
        touched = self._stale.touch(tasks, at=now)
        for task in touched:
            self._send([task.task_id], queue_for(task.queue), now)
        return len(touched)

    def _oldest(self, queue: str, now: int) -> int | None:
        """Return the time at which the oldest message of the queue and its front queue was enqueued (ms).

        None if both are empty; 0 if the time is missing or in the future.
        """
        with redis_errors():
            messages = [
                message
                for name in (queue, front_queue(queue))
                for message in cast("list[bytes]", self._redis.lrange(name, -MAX_PEEKS, -1))
            ]
        times = [at for message in messages if (at := _enqueued_at(message)) is not None]
        if not times or min(times) > now:
            return 0 if messages else None
        return min(times)

    def _repeat(self) -> None:
        with ERRORS.continuing():
            if self._leases.acquire("sweep", for_s=0.9 * self._every_s):
                self._pass()
        with ERRORS.continuing():
            if self._leases.acquire("purge", for_s=PURGE_EVERY_S):
                self._retention.purge()

    def _pass(self) -> None:
        # First, because it works with a full Redis, and the other steps may need the space.
        with ERRORS.continuing():
            if evicted := self._retention.evict_uploads():
                log.warning("evicted the uploads of %d old failures: little space is left", evicted)
        with ERRORS.continuing():
            self._host_limiter.admit_waiting()
        with ERRORS.continuing():
            if ended := self._retention.end_lost_requests():
                log.warning("ended %d requests that added to batches: their processes died", ended)
        if count := self.sweep():
            log.warning("enqueued %d lost tasks again", count)


def _enqueued_at(message: bytes) -> int | None:
    """Return the time at which a message was enqueued; None if it has no time or is not a message of a task."""
    try:
        return int(json.loads(message)["headers"][ENQUEUED_AT_HEADER])
    except (ValueError, TypeError, LookupError):
        return None
