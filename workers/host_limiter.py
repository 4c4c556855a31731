"""Limits of each host: a slot is released after each download, and the next waiting tasks are enqueued."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from common.errors import FetchError, MatchError
from common.net.connector import TransientFetchError
from common.queue.host_limits import NO_OUTCOME, SUCCESS, Fault, HostSlots, Outcome
from common.queue.jobs import front_queue
from common.queue.tasks import Claim, QueuedTask

log = logging.getLogger(__name__)

# Hosts with waiting tasks that one pass checks.
HOSTS_PER_PASS = 200


@dataclass(frozen=True, slots=True)
class HostLimiter:
    """Limits the downloads from each host; for a host without limits and faults it sends no command to Redis.

    `send` enqueues task ids to a queue with a time of enqueueing (ms since 1970).
    """

    slots: HostSlots
    send: Callable[[Sequence[str], str, int], None]

    @contextmanager
    def slot(self, claim: Claim) -> Iterator[None]:
        """Release the claim's slot at the end of the `with`, and report the outcome of the download inside."""
        outcome: Outcome = NO_OUTCOME
        try:
            yield
            outcome = SUCCESS
        except TransientFetchError as error:
            outcome = fault_of(error)
            raise
        except FetchError as error:
            # Any answer of the host, such as 404, shows that it works.
            outcome = SUCCESS if error.code.startswith("http_") else NO_OUTCOME
            raise
        finally:
            if claim.host is not None and (claim.has_slot or isinstance(outcome, Fault)):
                self._release(claim.host, claim.task_id, outcome)

    def skip(self, claim: Claim) -> None:
        """Release the slot of a claim that needs no download."""
        if claim.host is not None and claim.has_slot:
            self._release(claim.host, claim.task_id, NO_OUTCOME)

    def admit_waiting(self) -> None:
        """Enqueue waiting tasks of hosts with free slots: the slots of dead workers expire without a release."""
        for host in self.slots.waiting_hosts(limit=HOSTS_PER_PASS):
            self.admit(host)

    def admit(self, host: str) -> None:
        """Enqueue waiting tasks of this host, as its limits permit."""
        self.enqueue(self.slots.admit(host))

    def enqueue(self, tasks: Sequence[QueuedTask]) -> None:
        """Enqueue tasks that have waited for their host."""
        for task in tasks:
            # The tasks have waited in the queue already: at the end of a long queue their slots would be unused.
            self.send([task.task_id], front_queue(task.queue), task.enqueued_at)

    def _release(self, host: str, task_id: str, outcome: Outcome) -> None:
        """Release the slot. An error is only logged: the slot expires, and the download is complete."""
        try:
            self.enqueue(self.slots.release(host, task_id, outcome))
        except MatchError as error:
            log.warning("cannot release a host's slot: %s", error)
        except Exception:
            log.exception("cannot release a host's slot")


def fault_of(error: TransientFetchError) -> Fault:
    """Return the fault of a host that this error shows."""
    return Fault(
        code=error.code, error=str(error), is_rejection=error.is_rejection, retry_after_s=error.retry_after_s or 0.0
    )
