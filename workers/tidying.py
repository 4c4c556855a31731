"""Forgets what was kept long enough, and sooner what there is no room for."""

from dataclasses import dataclass, field

from redis import Redis

from common.queue.failures import Failures
from common.queue.ledger import Ledger
from common.redis.clock import now_ms
from common.store.base import Store
from common.uploads import Uploads

# Passes are ten minutes apart: with this, 720,000 deletions a day leave no growing heap of tombstones. Elasticsearch
# takes some seconds for them, and no more than 10,000 at once.
TOMBSTONES_AT_ONCE = 5000
UPLOADS_AT_ONCE = 500
# A failed task may be retried until just before its time is over, and then waits and runs: its deletion must outrank
# it to the end.
TOMBSTONES_LONGER_MS = 86_400_000


@dataclass(slots=True)
class Tidying:
    """Bounds what is kept of ended work; many workers may call it, each a bounded step."""

    redis: Redis
    ledger: Ledger
    failures: Failures
    store: Store
    uploads: Uploads
    failed_keep_s: int
    _emptied_to: int = field(default=0, init=False)

    def purge(self) -> None:
        """Forget failures, deletions and uploads whose time is over."""
        before = now_ms(self.redis) - self.failed_keep_s * 1000
        self.failures.forget_before(before)
        # The store last: while it is away, uploads must still go, or there soon would be no room for any.
        self.uploads.purge()
        self.store.purge(before=before - TOMBSTONES_LONGER_MS, limit=TOMBSTONES_AT_ONCE)

    def make_room(self) -> int:
        """Drop uploads of the oldest failures when there soon is no room for new ones; return of how many tasks.

        Else failures alone, a hostile client's for instance, could keep new work out until their time is over.
        """
        if not self.uploads.is_crowded():
            return 0
        failed = self.failures.after(self._emptied_to, limit=UPLOADS_AT_ONCE)
        if not failed:
            # All were seen; another worker's pass may have failed half-way: from the start again.
            self._emptied_to = 0
            return 0
        claims = self.ledger.uploads_of([task_id for task_id, _ in failed])
        # Asked of the ledger, because any of them may be open again by now.
        emptied = self.failures.evict_uploads(list(claims))
        self.uploads.drop([claims[task_id] for task_id in emptied])
        self._emptied_to = failed[-1][1]
        return len(emptied)
