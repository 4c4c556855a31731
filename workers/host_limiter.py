"""Per-host concurrency limit: a slot is released after each download, and the next waiting task is enqueued."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from common.errors import MatchError
from common.queue.host_limits import HostSlots
from common.queue.jobs import front_of
from common.queue.tasks import Claim, QueuedTask

log = logging.getLogger(__name__)

# Hosts with waiting tasks that one pass looks at.
HOSTS_PER_PASS = 200


@dataclass(frozen=True, slots=True)
class HostLimiter:
    """Limits downloads from one host; without a limit it sends Redis nothing.

    `send` gets task ids, a queue and the time of enqueueing (ms since 1970).
    """

    slots: HostSlots
    send: Callable[[Sequence[str], str, int], None]

    @contextmanager
    def slot(self, claim: Claim) -> Iterator[None]:
        """Release the slot that the claim holds at the end of the `with`."""
        try:
            yield
        finally:
            if claim.host is not None:
                self._release(claim.host, claim.task_id)

    def admit_waiting(self) -> None:
        """Enqueue waiting tasks for which slots are free although nobody released one: their worker died."""
        for host in self.slots.waiting_hosts(limit=HOSTS_PER_PASS):
            self._enqueue(self.slots.admit(host))

    def _release(self, host: str, task_id: str) -> None:
        """Release the slot. An error is only logged: the slot expires, and the download succeeded all the same."""
        try:
            self._enqueue(self.slots.release(host, task_id))
        except MatchError as error:
            log.warning("cannot release a host's slot: %s", error)
        except Exception:
            log.exception("cannot release a host's slot")

    def _enqueue(self, tasks: Sequence[QueuedTask]) -> None:
        for task in tasks:
            # They have waited in the queue once: at the end of a long queue their slots would go unused.
            self.send([task.task_id], front_of(task.queue), task.enqueued_at)
