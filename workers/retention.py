"""Retention: deletes failures, uploads and tombstones after their time, and evicts uploads when space runs out."""

from dataclasses import dataclass, field

from redis import Redis

from common.queue.batches import Batches
from common.queue.deferred_tasks import DeferredTasks
from common.queue.deleted_collections import DeletedCollections
from common.queue.deleted_images import DeletedImages
from common.queue.failures import Failures
from common.queue.ledger import Ledger
from common.redis.clock import now_ms
from common.store.base import Store
from common.uploads import Uploads
from workers.orphaned_thumbnails import OrphanedThumbnails

# With a pass every ten minutes, 720,000 deletions a day are purged in time. Elasticsearch takes some seconds for this
# number of tombstones, and accepts at most 10,000 at once.
TOMBSTONES_PER_PASS = 5000
UPLOADS_PER_PASS = 500
REQUESTS_PER_PASS = 1000
# With a pass every ten minutes, 720,000 batches a day are purged in time.
BATCHES_PER_PASS = 5000
# A failed task can be retried until its retention ends, and then waits and runs. The tombstone of a newer deletion must
# exist until then.
TOMBSTONE_MARGIN_MS = 86_400_000


@dataclass(slots=True)
class Retention:
    """Limits the data of ended tasks; each call is a bounded step, and several workers may call it."""

    redis: Redis
    ledger: Ledger
    failures: Failures
    store: Store
    uploads: Uploads
    failed_keep_s: int
    thumbnails: OrphanedThumbnails | None = None
    _evicted_until: int = field(default=0, init=False)

    def purge(self) -> None:
        """Delete the failures, uploads and tombstones whose retention has ended."""
        before = now_ms(self.redis) - self.failed_keep_s * 1000
        self.failures.remove_before(before)
        Batches(self.redis).purge(limit=BATCHES_PER_PASS)
        DeferredTasks(self.redis).purge()
        # A sequence number is the time in microseconds. It exceeds the clock only after that was set back.
        DeletedCollections(self.redis).remove_before((before - TOMBSTONE_MARGIN_MS) * 1000)
        DeletedImages(self.redis).remove_before((before - TOMBSTONE_MARGIN_MS) * 1000)
        # The store is last: while it is unavailable, uploads must be deleted anyway, or their space runs out.
        self.uploads.purge()
        self.store.purge(before=before - TOMBSTONE_MARGIN_MS, limit=TOMBSTONES_PER_PASS)
        if self.thumbnails is not None:
            self.thumbnails.purge()

    def end_lost_requests(self) -> int:
        """End requests that added to batches and whose process died, and return their number."""
        return self.ledger.end_lost_requests(limit=REQUESTS_PER_PASS)

    def evict_uploads(self) -> int:
        """Delete uploads of the oldest failures when little space is left; return the number of tasks.

        Otherwise failed tasks, for instance of a hostile client, could block new work until their retention ends.
        """
        if not self.uploads.is_nearly_full():
            return 0
        failed = self.failures.after(self._evicted_until, limit=UPLOADS_PER_PASS)
        if not failed:
            # The end of the list. A pass of another worker may have failed half-way: start again.
            self._evicted_until = 0
            return 0
        uploads = self.ledger.uploads_of([task_id for task_id, _ in failed])
        # The script decides atomically: a task may have been opened again since.
        evicted = self.failures.evict_uploads(list(uploads))
        self.uploads.drop([uploads[task_id] for task_id in evicted])
        self._evicted_until = failed[-1][1]
        return len(evicted)
