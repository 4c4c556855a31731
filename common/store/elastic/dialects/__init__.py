"""The dialects of Elasticsearch and OpenSearch, one file for each: mapping, value and query of a bit vector."""

from common.store.elastic.dialects.base import Dialect, Json, Vectors, bits, bits_within
from common.store.elastic.dialects.elasticsearch import ElasticsearchDialect
from common.store.elastic.dialects.opensearch import OpenSearchDialect

__all__ = ["Dialect", "ElasticsearchDialect", "Json", "OpenSearchDialect", "Vectors", "bits", "bits_within"]
