"""The parts that both composition roots put together alike, from the settings; none connects before its first use."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from common.config import Settings
from common.images.compute import ComputeSlot
from common.images.decode import Limits
from common.images.formats import looks_like_image
from common.net.fetch import Fetcher
from common.queue.admission import Admission
from common.queue.ledger import HostPlaces, Ledger
from common.redis.client import connect
from common.store.base import Store
from common.store.elastic import ElasticStore, Shape
from common.store.sqlite import SqliteStore
from common.uploads import FolderUploads, RedisUploads, Uploads

log = logging.getLogger(__name__)

# Beyond the longest download: what a busy worker's thread may need to give its place at a host back.
PLACE_KEPT_LONGER_S = 5.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What an API process and a worker process have in common."""

    redis: Redis
    admission: Admission
    store: Store
    ledger: Ledger
    uploads: Uploads
    fetcher: Fetcher
    slot: ComputeSlot
    limits: Limits

    def close(self) -> None:
        """Give back every connection, also where one of them breaks over it."""
        with ExitStack() as closing:
            for part in (self.redis, self.uploads, self.store, self.fetcher):
                closing.callback(part.close)


def wire(settings: Settings) -> Parts:
    """Put the shared parts together."""
    if settings.elasticsearch_doc_type is not None:
        log.info("ELASTICSEARCH_DOC_TYPE has no effect: Elasticsearch has no document types any more")
    redis = connect(settings.redis_url)
    admission = Admission(redis, max_percent=settings.max_redis_percent)
    return Parts(
        redis=redis,
        admission=admission,
        store=open_store(settings),
        ledger=Ledger(
            redis,
            max_open=settings.max_backlog,
            finished_keep_s=settings.finished_keep_s,
            failed_keep_s=settings.failed_keep_s,
            host_places=HostPlaces(
                most=settings.fetch_per_host, lease_s=settings.fetch_timeout_s + PLACE_KEPT_LONGER_S
            ),
            max_callbacks_bytes=settings.max_callbacks_bytes,
        ),
        uploads=_uploads(settings, redis, admission),
        fetcher=Fetcher(
            max_bytes=settings.max_image_bytes,
            timeout_s=settings.fetch_timeout_s,
            allow=settings.fetch_allow,
            accepts=looks_like_image,
        ),
        slot=ComputeSlot(timeout_s=settings.decode_timeout_s),
        limits=Limits(
            pixels=settings.max_image_pixels,
            jpeg_pixels=settings.max_jpeg_pixels,
            draft_px=settings.jpeg_draft_px,
        ),
    )


def _uploads(settings: Settings, redis: Redis, admission: Admission) -> Uploads:
    url = settings.uploads_url
    if url is None:
        return RedisUploads(redis, room=admission, max_bytes=settings.max_uploads_bytes)
    if url.startswith("file://"):
        return FolderUploads(Path(url.removeprefix("file://")), max_bytes=settings.max_uploads_bytes)
    own = connect(url)
    room = Admission(own, max_percent=settings.max_redis_percent)
    return RedisUploads(own, room=room, max_bytes=settings.max_uploads_bytes)


def open_store(settings: Settings) -> Store:
    """Return the store that the settings choose; it connects before its first use, not now."""
    if settings.store_url is not None:
        return SqliteStore(Path(settings.store_url.removeprefix("sqlite:///")))
    return ElasticStore(
        settings.elasticsearch_url,
        index=settings.elasticsearch_index,
        timeout_s=settings.elasticsearch_timeout_s,
        api_key=settings.elasticsearch_api_key,
        ca_file=settings.elasticsearch_ca_file,
        shape=shape(settings),
        num_candidates=settings.elasticsearch_num_candidates,
    )


def shape(settings: Settings) -> Shape:
    """Return how a new index is to be made."""
    return Shape(
        shards=settings.elasticsearch_shards,
        replicas=settings.elasticsearch_replicas,
        refresh_interval_s=settings.elasticsearch_refresh_interval_s,
        vectors=settings.index_vectors,
    )
