"""The store that carries Match beyond one machine: an Elasticsearch index of bit vectors, signatures and metadata."""

from common.store.elastic.mapping import Shape
from common.store.elastic.store import ElasticStore

__all__ = ["ElasticStore", "Shape"]
