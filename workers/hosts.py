"""Places at hosts: each is given back when its download is over, and who waited for it is sent."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from common.errors import MatchError
from common.queue.host_limits import HostSlots
from common.queue.jobs import front_of
from common.queue.tasks import Claim, Sent

log = logging.getLogger(__name__)

# Of the hosts that somebody waits for, looked at in one pass.
HOSTS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Hosts:
    """Keeps downloads from one host within their number; a worker that has no such limit asks Redis nothing for it.

    `send` is given task ids, a queue and the time (ms since 1970).
    """

    slots: HostSlots
    send: Callable[[Sequence[str], str, int], None]

    @contextmanager
    def place_of(self, claim: Claim) -> Iterator[None]:
        """Give the place that the claim came with back at the end of the `with`."""
        try:
            yield
        finally:
            if claim.host is not None:
                self._leave(claim.host, claim.task_id)

    def wake(self) -> None:
        """Send who waits for a host that has places although nobody gives one back: a worker died with them."""
        for host in self.slots.waiting_hosts(limit=HOSTS_AT_ONCE):
            self._send(self.slots.admit(host))

    def _leave(self, host: str, task_id: str) -> None:
        """Give the place back; whatever goes wrong, it ends by itself, and the download is good all the same."""
        try:
            self._send(self.slots.release(host, task_id))
        except MatchError as error:
            log.warning("a place at a host is not given back: %s", error)
        except Exception:
            log.exception("a place at a host is not given back")

    def _send(self, tasks: Sequence[Sent]) -> None:
        for task in tasks:
            # They have waited for their turn once: at the end of a long queue their places would go unused.
            self.send([task.task_id], front_of(task.queue), task.at)
