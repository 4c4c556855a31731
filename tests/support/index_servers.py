"""The index servers that tests run on: Elasticsearch, and with MATCH_INDEX_SERVERS=all also OpenSearch."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import pytest
from elastic_transport import HttpHeaders, Urllib3HttpNode
from elasticsearch import Elasticsearch

from common.store.elastic.dialects import Dialect, ElasticsearchDialect, OpenSearchDialect
from dev import elasticsearch_node, opensearch_node
from dev.search_node import SearchNode

ALL = os.environ.get("MATCH_INDEX_SERVERS") == "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product: its node for tests, the reason why it cannot start, its dialect, and its type of flattened objects."""

    node: type[SearchNode]
    why_not: Callable[[], str]
    dialect: Dialect
    flattened: str

    @property
    def name(self) -> str:
        """The product's name in messages."""
        return self.dialect.product


ELASTICSEARCH = Product(
    node=elasticsearch_node.Node,
    why_not=elasticsearch_node.why_not,
    dialect=ElasticsearchDialect(),
    flattened="flattened",
)
OPENSEARCH = Product(
    node=opensearch_node.OpenSearchNode,
    why_not=opensearch_node.why_not,
    dialect=OpenSearchDialect(),
    flattened="flat_object",
)
# Parameters of a fixture.
BOTH_PRODUCTS = [
    pytest.param(ELASTICSEARCH, marks=pytest.mark.elasticsearch, id="elasticsearch"),
    pytest.param(OPENSEARCH, marks=pytest.mark.opensearch, id="opensearch"),
]
# `make acceptance` and `make faults` run both.
PRODUCTS = BOTH_PRODUCTS if ALL else BOTH_PRODUCTS[:1]
# The fixtures of tests/e2e with a service on each.
STACKS = [
    pytest.param("elastic_stack", marks=pytest.mark.elasticsearch),
    *([pytest.param("opensearch_stack", marks=pytest.mark.opensearch)] if ALL else []),
]


def startable(request: pytest.FixtureRequest, give_up: Callable[[str], NoReturn]) -> Product:
    """Return the product that is the fixture's parameter; give up if this machine cannot start it."""
    product: Product = request.param
    if reason := product.why_not():
        give_up(reason)
    return product


def connect(url: str) -> Elasticsearch:
    """Return a client for the administration of either product: elasticsearch-py itself rejects OpenSearch."""
    return Elasticsearch(url, node_class=_EitherProduct)


class _EitherProduct(Urllib3HttpNode):
    """Sends the media types that both products know, and reports every product as Elasticsearch."""

    def perform_request(
        self, method: str, target: str, body: bytes | None = None, headers: Any = None, request_timeout: Any = None
    ) -> Any:
        plain = {name: _plain(value) for name, value in (headers or {}).items()}
        response = super().perform_request(method, target, body, HttpHeaders(plain), request_timeout)
        headers = HttpHeaders({**response.meta.headers, "x-elastic-product": "Elasticsearch"})
        return response._replace(meta=replace(response.meta, headers=headers))


def _plain(value: str) -> str:
    """Return a media type without the version of the API.

    >>> _plain("application/vnd.elasticsearch+json; compatible-with=9")
    'application/json'
    """
    return value.replace("vnd.elasticsearch+", "").partition("; compatible-with")[0]
