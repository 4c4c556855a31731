"""The dialects: what Elasticsearch and OpenSearch express differently, one file for each."""

from common.store.elastic.dialects.base import Dialect, Json, Vectors
from common.store.elastic.dialects.elasticsearch import ElasticsearchDialect
from common.store.elastic.dialects.opensearch import OpenSearchDialect

__all__ = ["Dialect", "ElasticsearchDialect", "Json", "OpenSearchDialect", "Vectors"]
