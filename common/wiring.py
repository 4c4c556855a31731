"""The dependencies that API and workers share, built from the settings; none connects before its first use."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from common.byte_budget import ByteBudget
from common.config import Settings
from common.decoding.limits import DecoderLimits
from common.images.formats import looks_like_image
from common.net.fetch import Fetcher
from common.net.host_headers import HostHeaders
from common.queue.admission import Admission
from common.queue.host_limits import HostLimit
from common.queue.ledger import Ledger
from common.redis.client import connect
from common.store.base import Store
from common.store.factory import open_store, open_thumbnails
from common.store.thumbnails import Thumbnails
from common.uploads import FolderUploads, RedisUploads, Uploads

log = logging.getLogger(__name__)

# Duration of a slot's lease beyond the longest download: a busy worker's thread may release its slot late.
SLOT_LEASE_MARGIN_S = 5.0
# Maximum time that an image waits until there is memory for it.
BUDGET_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The dependencies that an API process and a worker process share."""

    redis: Redis
    admission: Admission
    store: Store
    thumbnails: Thumbnails | None
    ledger: Ledger
    uploads: Uploads
    fetcher: Fetcher
    budget: ByteBudget

    def close(self) -> None:
        """Close every connection, even if closing one of them raises an error."""
        with ExitStack() as closing:
            for part in (self.redis, self.uploads, self.store, self.thumbnails, self.fetcher):
                if part is not None:
                    closing.callback(part.close)


def build_dependencies(settings: Settings) -> Dependencies:
    """Build the shared dependencies."""
    if settings.elasticsearch_doc_type is not None:
        log.info("ELASTICSEARCH_DOC_TYPE has no effect: index servers have no document types any more")
    redis = connect(settings.redis_url)
    admission = Admission(redis, max_percent=settings.max_redis_percent)
    return Dependencies(
        redis=redis,
        admission=admission,
        store=open_store(settings),
        thumbnails=open_thumbnails(settings),
        ledger=Ledger(
            redis,
            max_open=settings.max_backlog,
            finished_keep_s=settings.finished_keep_s,
            failed_keep_s=settings.failed_keep_s,
            host_limit=host_limit(settings),
            max_callbacks_bytes=settings.max_callbacks_bytes,
        ),
        uploads=_uploads(settings, redis, admission),
        fetcher=Fetcher(
            max_bytes=settings.max_image_bytes,
            timeout_s=settings.fetch_timeout_s,
            allow=settings.fetch_allow,
            accepts=looks_like_image,
            user_agent=settings.fetch_user_agent,
            headers=settings.fetch_headers or HostHeaders(),
            honours_robots_tag=settings.fetch_honour_robots_tag,
        ),
        budget=ByteBudget(settings.max_bytes_in_flight, wait_s=BUDGET_WAIT_S),
    )


def decoder_limits(settings: Settings) -> DecoderLimits:
    """Return the limits of a decoder process."""
    return DecoderLimits(
        pixels=settings.max_image_pixels,
        jpeg_pixels=settings.max_jpeg_pixels,
        draft_px=settings.jpeg_draft_px,
        timeout_s=settings.decode_timeout_s,
        memory_bytes=settings.decode_memory_bytes,
        thumbnail_px=settings.thumbnails_px,
    )


def host_limit(settings: Settings) -> HostLimit:
    """Return the limits of each host."""
    return HostLimit(
        slots=settings.fetch_per_host,
        lease_s=settings.fetch_timeout_s + SLOT_LEASE_MARGIN_S,
        retry_for_s=settings.fetch_retry_for_s,
    )


def _uploads(settings: Settings, redis: Redis, admission: Admission) -> Uploads:
    url = settings.uploads_url
    if url is None:
        return RedisUploads(redis, admission=admission, max_bytes=settings.max_uploads_bytes)
    if url.startswith("file://"):
        return FolderUploads(Path(url.removeprefix("file://")), max_bytes=settings.max_uploads_bytes)
    separate = connect(url)
    admission = Admission(separate, max_percent=settings.max_redis_percent)
    return RedisUploads(separate, admission=admission, max_bytes=settings.max_uploads_bytes)
