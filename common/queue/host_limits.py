"""Per-host concurrency limit: the download slots of each host, over all workers, and the tasks that wait for a slot."""

from dataclasses import dataclass
from itertools import count
from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.jobs import BATCH_QUEUES, SINGLE_QUEUE
from common.queue.scripts import script
from common.queue.tasks import QueuedTask
from common.redis.client import redis_errors

# Waiting tasks to enqueue at once for a host after its limit was removed from the settings.
MAX_UNLIMITED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimit:
    """Maximum number of concurrent downloads from one host, over all workers; 0 for no limit.

    A slot is a lease of `lease_s`, which must exceed the longest download; the slot of a dead worker expires.
    """

    slots: int
    lease_s: float

    @property
    def lease_ms(self) -> int:
        """Return `lease_s` in milliseconds."""
        return int(self.lease_s * 1000)


NO_LIMIT = HostLimit(slots=0, lease_s=1.0)


class HostSlots:
    """The slots of all hosts. `Ledger.begin` acquires one for a task, or lets the task wait.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis, limit: HostLimit) -> None:
        self._redis = redis
        self._release = script(
            redis,
            "release_slot",
            max_slots=limit.slots,
            slot_lease_ms=limit.lease_ms,
            max_unlimited=MAX_UNLIMITED,
        )
        self._turns = count()

    def release(self, host: str, task_id: str) -> list[QueuedTask]:
        """Release the task's slot; return the waiting tasks that acquired one now, to be enqueued."""
        with redis_errors():
            reply = self._release(*self._queues(), host=host, id=task_id)
        now, admitted = cast("tuple[int, list[bytes]]", reply)
        return [
            QueuedTask(task_id=task_id.decode(), queue=queue.decode(), enqueued_at=now)
            for task_id, queue in zip(admitted[::2], admitted[1::2], strict=True)
        ]

    def _queues(self) -> list[str]:
        """Return the queues in the order in which their tasks acquire slots: the batch queues take turns."""
        first = next(self._turns) % len(BATCH_QUEUES)
        return [SINGLE_QUEUE, *BATCH_QUEUES[first:], *BATCH_QUEUES[:first]]

    def admit(self, host: str) -> list[QueuedTask]:
        """Acquire free slots for waiting tasks, and return these tasks, to be enqueued."""
        return self.release(host, "")

    def waiting_hosts(self, *, limit: int) -> list[str]:
        """Return at most `limit` hosts with waiting tasks, chosen at random."""
        with redis_errors():
            hosts = cast("list[bytes]", self._redis.srandmember(keys.WAITING_HOSTS, limit))
        return [host.decode() for host in hosts]
