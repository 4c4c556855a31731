"""A worker's pipeline in the process of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from common.byte_budget import ByteBudget
from common.queue.batches import Batches
from common.queue.deferred_tasks import DeferredTasks
from common.queue.deleted_collections import DeletedCollections
from common.queue.deleted_images import DeletedImages
from common.queue.host_limits import NO_LIMIT, HostLimit, HostSlots
from common.queue.ledger import Ledger
from common.store.base import Store
from common.uploads import Uploads
from support.decoders import InProcessDecoder
from workers.deletion import Deletion
from workers.finishing import TaskFinisher
from workers.host_limiter import HostLimiter
from workers.pipeline import Pipeline
from workers.writer import Writer

MAX_IMAGE_BYTES = 100_000


@contextmanager
def open_pipeline(
    redis: Redis,
    ledger: Ledger,
    uploads: Uploads,
    store: Store,
    *,
    failed_keep_s: int = 600,
    host_limit: HostLimit = NO_LIMIT,
    **options: Any,
) -> Iterator[Pipeline]:
    """Yield a pipeline that writes each record at once; `options` are other fields of it.

    Without a `fetcher` it runs only tasks of uploads.
    """
    finisher = TaskFinisher(ledger, uploads, failed_keep_s=failed_keep_s)
    writer = Writer(store, finisher, max_records=10, linger_s=0, hold_s=0)
    fields = {
        "fetcher": None,
        "budget": ByteBudget(2 * MAX_IMAGE_BYTES, wait_s=0),
        "decoder": InProcessDecoder(),
        "deletion": Deletion(
            DeletedCollections(redis), DeletedImages(redis), DeferredTasks(redis), Batches(redis), store
        ),
        "max_image_bytes": MAX_IMAGE_BYTES,
        **options,
    }
    yield Pipeline(
        ledger=ledger,
        uploads=uploads,
        writer=writer,
        finisher=finisher,
        host_limiter=HostLimiter(HostSlots(redis, host_limit), lambda *_: None),
        **fields,
    )
    writer.close()
