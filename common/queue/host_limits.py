"""Per-host concurrency limit: download slots of each host, over all workers, and the tasks that wait for one."""

from dataclasses import dataclass
from typing import cast

from redis import Redis

from common.queue import keys
from common.queue.jobs import QUEUES
from common.queue.scripts import script
from common.queue.tasks import QueuedTask
from common.redis.client import redis_errors

# Tasks enqueued at once for a host whose limit was removed.
MAX_UNLIMITED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimit:
    """How many downloads from one host may run at once, over all workers; 0 for no limit.

    `lease_s` is how long a slot is kept for a worker that died: more than the longest download.
    """

    slots: int
    lease_s: float

    @property
    def lease_ms(self) -> int:
        """Return `lease_s` in milliseconds."""
        return int(self.lease_s * 1000)


NO_LIMIT = HostLimit(slots=0, lease_s=1.0)


class HostSlots:
    """The slots of all hosts. `Ledger.begin` takes one for a task, or lets the task wait.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it refuses.
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

    def release(self, host: str, task_id: str) -> list[QueuedTask]:
        """Release the task's slot; return the waiting tasks that hold one now, to be enqueued."""
        with redis_errors():
            reply = self._release(*QUEUES, host=host, id=task_id)
        now, admitted = cast("tuple[int, list[bytes]]", reply)
        return [
            QueuedTask(task_id=task_id.decode(), queue=queue.decode(), enqueued_at=now)
            for task_id, queue in zip(admitted[::2], admitted[1::2], strict=True)
        ]

    def admit(self, host: str) -> list[QueuedTask]:
        """Return the waiting tasks, to be enqueued, for which slots are free although nobody released one."""
        return self.release(host, "")

    def waiting_hosts(self, *, limit: int) -> list[str]:
        """Return some of the hosts that tasks wait for."""
        with redis_errors():
            hosts = cast("list[bytes]", self._redis.srandmember(keys.WAITING_HOSTS, limit))
        return [host.decode() for host in hosts]
