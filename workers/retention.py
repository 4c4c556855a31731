"""Retention: deletes what was kept long enough, and evicts uploads early when space runs out."""

from dataclasses import dataclass, field

from redis import Redis

from common.queue.failures import Failures
from common.queue.ledger import Ledger
from common.redis.clock import now_ms
from common.store.base import Store
from common.uploads import Uploads

# Passes are ten minutes apart: at this rate 720,000 deletions a day leave no growing heap of tombstones. Elasticsearch
# takes some seconds for them, and accepts at most 10,000 at once.
TOMBSTONES_PER_PASS = 5000
UPLOADS_PER_PASS = 500
# A failed task may be retried until just before its retention ends, and then waits and runs: the tombstone of a newer
# deletion has to exist until then.
TOMBSTONES_LONGER_MS = 86_400_000


@dataclass(slots=True)
class Retention:
    """Bounds what is kept of ended tasks; many workers may call it, each a bounded step."""

    redis: Redis
    ledger: Ledger
    failures: Failures
    store: Store
    uploads: Uploads
    failed_keep_s: int
    _evicted_until: int = field(default=0, init=False)

    def purge(self) -> None:
        """Delete failures, tombstones and uploads whose retention has ended."""
        before = now_ms(self.redis) - self.failed_keep_s * 1000
        self.failures.forget_before(before)
        # The store last: while it is unavailable, uploads still have to be deleted, or their space runs out.
        self.uploads.purge()
        self.store.purge(before=before - TOMBSTONES_LONGER_MS, limit=TOMBSTONES_PER_PASS)

    def evict_uploads(self) -> int:
        """Delete uploads of the oldest failures when little space is left for new ones; return of how many tasks.

        Otherwise failures, for instance those of a hostile client, could keep new work out until their retention ends.
        """
        if not self.uploads.is_nearly_full():
            return 0
        failed = self.failures.after(self._evicted_until, limit=UPLOADS_PER_PASS)
        if not failed:
            # All were seen, but another worker's pass may have failed half-way: start over.
            self._evicted_until = 0
            return 0
        uploads = self.ledger.uploads_of([task_id for task_id, _ in failed])
        # The ledger decides, because any of them may have been opened again since.
        evicted = self.failures.evict_uploads(list(uploads))
        self.uploads.drop([uploads[task_id] for task_id in evicted])
        self._evicted_until = failed[-1][1]
        return len(evicted)
