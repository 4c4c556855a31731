"""Limits of each host over all workers: download slots, a pace that adapts to faults, and the tasks that wait.

`lua/host_pace.lua` has the rules of the pace.
"""

import random
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal, cast

from redis import Redis

from common.queue import keys
from common.queue.jobs import BATCH_QUEUES, SINGLE_QUEUE
from common.queue.scripts import script
from common.queue.tasks import QueuedTask, queued_tasks
from common.redis.client import redis_errors

# Waiting tasks of a host to enqueue at once.
MAX_ADMITTED = 500
# The longest time for which a host may ask, and which one try of a task waits.
LONGEST_RETRY_AFTER_MS = 900_000
# Each wait is multiplied by a random factor from this to 1, so that tasks are not tried again all at once.
LEAST_JITTER = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimit:
    """Maximum number of concurrent downloads from one host, over all workers; 0 for no limit.

    A slot is a lease of `lease_s`, which must exceed the longest download; the slot of a dead worker expires. Temporary
    faults of a host are retried for `retry_for_s`.
    """

    slots: int
    lease_s: float
    retry_for_s: float = 3600.0

    @property
    def lease_ms(self) -> int:
        """Return `lease_s` in milliseconds."""
        return int(self.lease_s * 1000)

    @property
    def retry_for_ms(self) -> int:
        """Return `retry_for_s` in milliseconds."""
        return int(self.retry_for_s * 1000)


NO_LIMIT = HostLimit(slots=0, lease_s=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A temporary fault of a host, as a download shows it.

    `is_rejection`: the host refuses to send so much. `retry_after_s` is the time for which it asked; 0 without one.
    """

    code: str
    error: str
    is_rejection: bool = False
    retry_after_s: float = 0.0


# The outcome of a download that shows that the host works, and of one that shows nothing about the host.
SUCCESS: Final = "success"
NO_OUTCOME: Final = ""
Outcome = Fault | Literal["success", ""]


def jitter() -> float:
    """Return a random factor of a wait."""
    return random.uniform(LEAST_JITTER, 1.0)  # noqa: S311 - not for cryptography


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
            retry_for_ms=limit.retry_for_ms,
            longest_retry_after_ms=LONGEST_RETRY_AFTER_MS,
            max_admitted=MAX_ADMITTED,
        )
        self._turns = count()

    def release(self, host: str, task_id: str, outcome: Outcome = NO_OUTCOME) -> list[QueuedTask]:
        """Release the task's slot, adapt the host's pace, and return the waiting tasks to be enqueued now."""
        fault = outcome if isinstance(outcome, Fault) else None
        with redis_errors():
            reply = self._release(
                *self._queues(),
                host=host,
                id=task_id,
                outcome="fault" if isinstance(outcome, Fault) else outcome,
                code=fault.code if fault else "",
                error_text=fault.error if fault else "",
                is_rejection=int(fault is not None and fault.is_rejection),
                retry_after_ms=int(fault.retry_after_s * 1000) if fault else 0,
                jitter=jitter(),
            )
        now, admitted = cast("tuple[int, list[bytes]]", reply)
        return queued_tasks(admitted, at=now)

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
