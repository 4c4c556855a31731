"""Finishing tasks: uploads and ledger are updated in an order that neither loses nor leaks uploads."""

import logging
from collections.abc import Sequence

from common.queue.ledger import Ledger
from common.queue.tasks import State, TaskResult
from common.uploads import UPLOAD_TTL_S, Uploads

log = logging.getLogger(__name__)


class TaskFinisher:
    """Finishes tasks; a call takes the same number of round trips for many tasks as for one."""

    def __init__(self, ledger: Ledger, uploads: Uploads, *, failed_keep_s: int) -> None:
        self._ledger = ledger
        self._uploads = uploads
        self._failed_keep_s = failed_keep_s

    def finish(self, results: Sequence[TaskResult]) -> None:
        """Close the tasks and delete their uploads; a failed task keeps its upload, so that it can be retried.

        The expiry of uploads is set first. If this process dies before it writes to the ledger, the task runs again
        with bytes that still exist. Bytes that no task needs expire.
        """
        failed = [result.upload_id for result in results if result.upload_id and result.state is State.FAILED]
        done = [result.upload_id for result in results if result.upload_id and result.state is not State.FAILED]
        self._uploads.drop(failed, after_s=self._failed_keep_s)
        self._uploads.drop(done, after_s=UPLOAD_TTL_S)
        if dropped := self._ledger.finish(results):
            log.warning("dropped %d callbacks: too many are waiting", dropped)
        self._uploads.drop(done)
