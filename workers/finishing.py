"""Finishing tasks: their uploads and their ledger entries, in the order that neither loses nor leaks uploads."""

import logging
from collections.abc import Sequence

from common.queue.ledger import Ledger
from common.queue.tasks import State, TaskResult
from common.uploads import UNKEPT_S, Uploads

log = logging.getLogger(__name__)


class TaskFinisher:
    """Finishes tasks; many in one call cost as many round trips as one."""

    def __init__(self, ledger: Ledger, uploads: Uploads, *, failed_keep_s: int) -> None:
        self._ledger = ledger
        self._uploads = uploads
        self._failed_keep_s = failed_keep_s

    def finish(self, results: Sequence[TaskResult]) -> None:
        """Close the tasks and delete their uploads; a failed task keeps its upload, so that it can be retried.

        The uploads get their expiry first: if this process dies before it writes to the ledger, the work is done again
        from bytes that still exist, and bytes that no task needs do not stay for ever.
        """
        failed = [result.upload_id for result in results if result.upload_id and result.state is State.FAILED]
        done = [result.upload_id for result in results if result.upload_id and result.state is not State.FAILED]
        self._uploads.drop(failed, after_s=self._failed_keep_s)
        self._uploads.drop(done, after_s=UNKEPT_S)
        if dropped := self._ledger.finish(results):
            log.warning("dropped %d callbacks: too many are waiting", dropped)
        self._uploads.drop(done)
