"""The store that the settings choose."""

from pathlib import Path

from common.config import Settings
from common.store.base import Store
from common.store.elastic import ElasticStore, ElasticThumbnails, Shape
from common.store.elastic.connection import Connection, Signer
from common.store.sqlite import SqliteStore, SqliteThumbnails
from common.store.thumbnails import Thumbnails


def open_store(settings: Settings) -> Store:
    """Return the store that the settings choose; it connects at its first use."""
    if settings.store_url is not None:
        return SqliteStore(_sqlite_file(settings.store_url))
    return ElasticStore(
        settings.elasticsearch_url,
        index=settings.elasticsearch_index,
        timeout_s=settings.elasticsearch_timeout_s,
        api_key=settings.elasticsearch_api_key,
        ca_file=settings.elasticsearch_ca_file,
        signer=_signer(settings),
        shape=shape(settings),
        num_candidates=settings.elasticsearch_num_candidates,
    )


def open_thumbnails(settings: Settings) -> Thumbnails | None:
    """Return the thumbnails beside the store, None if the settings keep none; they connect at their first use."""
    if not settings.thumbnails_px:
        return None
    if settings.store_url is not None:
        store = _sqlite_file(settings.store_url)
        return SqliteThumbnails(store.with_name(f"{store.name}-thumbnails"))
    return ElasticThumbnails(elastic_connection(settings), index=settings.elasticsearch_index, shape=shape(settings))


def elastic_connection(settings: Settings) -> Connection:
    """Return a connection to the cluster of the settings; it connects at its first use."""
    return Connection(
        settings.elasticsearch_url,
        index=settings.elasticsearch_index,
        timeout_s=settings.elasticsearch_timeout_s,
        api_key=settings.elasticsearch_api_key,
        ca_file=settings.elasticsearch_ca_file,
        signer=_signer(settings),
    )


def shape(settings: Settings) -> Shape:
    """Return the shape of a new index."""
    return Shape(
        shards=settings.elasticsearch_shards,
        replicas=settings.elasticsearch_replicas,
        refresh_interval_s=settings.elasticsearch_refresh_interval_s,
        vectors=settings.index_vectors,
    )


def _signer(settings: Settings) -> Signer | None:
    if settings.elasticsearch_aws_region is None:
        return None
    from common.store.elastic.signing import AwsSigner  # noqa: PLC0415 - botocore is an optional extra

    return AwsSigner(region=settings.elasticsearch_aws_region, service=settings.elasticsearch_aws_service)


def _sqlite_file(store_url: str) -> Path:
    return Path(store_url.removeprefix("sqlite:///"))
