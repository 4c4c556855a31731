"""The end of tasks: their uploads and their ledger entries, in the order that neither loses nor leaks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from common.queue.ledger import Ledger
from common.queue.tasks import Claim, Closing, State
from common.uploads import UNCLAIMED_S, Uploads

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class End:
    """What a task came to."""

    claim: Claim
    state: State
    code: str = ""
    error: str = ""


class Settlement:
    """Ends tasks; many in one call cost as many round trips as one."""

    def __init__(self, ledger: Ledger, uploads: Uploads, *, failed_keep_s: int) -> None:
        self._ledger = ledger
        self._uploads = uploads
        self._failed_keep_s = failed_keep_s

    def settle(self, ends: Sequence[End]) -> None:
        """Close the tasks and let their uploads go; a failed one keeps its upload so that a retry can work.

        The uploads get their expiry first: should this process die before the ledger is closed, the work is done again
        from bytes that are still there, and bytes that nobody asks for do not stay for ever.
        """
        kept = [upload for end in ends if (upload := end.claim.job.upload) and end.state is State.FAILED]
        done = [upload for end in ends if (upload := end.claim.job.upload) and end.state is not State.FAILED]
        self._uploads.drop(kept, after_s=self._failed_keep_s)
        self._uploads.drop(done, after_s=UNCLAIMED_S)
        dropped = self._ledger.close([_closing(end) for end in ends])
        if dropped:
            log.warning("%d callbacks are dropped: too many wait", dropped)
        self._uploads.drop(done)


def _closing(end: End) -> Closing:
    return Closing(task_id=end.claim.task_id, state=end.state, code=end.code, error=end.error)
