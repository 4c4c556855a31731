"""Per-host concurrency limit: a slot is released after each download, and the next waiting task is enqueued."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from common.errors import MatchError
from common.queue.host_limits import HostSlots
from common.queue.jobs import front_queue
from common.queue.tasks import Claim, QueuedTask

log = logging.getLogger(__name__)

# Hosts with waiting tasks that one pass checks.
HOSTS_PER_PASS = 200


@dataclass(frozen=True, slots=True)
class HostLimiter:
    """Limits the concurrent downloads from each host; without a limit it sends no command to Redis.

    `send` enqueues task ids to a queue with a time of enqueueing (ms since 1970).
    """

    slots: HostSlots
    send: Callable[[Sequence[str], str, int], None]

    @contextmanager
    def slot(self, claim: Claim) -> Iterator[None]:
        """Release the claim's slot at the end of the `with`."""
        try:
            yield
        finally:
            if claim.host is not None:
                self._release(claim.host, claim.task_id)

    def admit_waiting(self) -> None:
        """Enqueue waiting tasks of hosts with free slots: the slots of dead workers expire without a release."""
        for host in self.slots.waiting_hosts(limit=HOSTS_PER_PASS):
            self._enqueue(self.slots.admit(host))

    def _release(self, host: str, task_id: str) -> None:
        """Release the slot. An error is only logged: the slot expires, and the download is complete."""
        try:
            self._enqueue(self.slots.release(host, task_id))
        except MatchError as error:
            log.warning("cannot release a host's slot: %s", error)
        except Exception:
            log.exception("cannot release a host's slot")

    def _enqueue(self, tasks: Sequence[QueuedTask]) -> None:
        for task in tasks:
            # The tasks have waited in the queue already: at the end of a long queue their slots would be unused.
            self.send([task.task_id], front_queue(task.queue), task.enqueued_at)
