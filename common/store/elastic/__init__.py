"""The store in Elasticsearch or OpenSearch: bit vectors, signatures and metadata, for more than one machine."""

from common.store.elastic.mapping import Shape
from common.store.elastic.store import ElasticStore
from common.store.elastic.thumbnails import ElasticThumbnails

__all__ = ["ElasticStore", "ElasticThumbnails", "Shape"]
