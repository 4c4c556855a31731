"""The connection to a cluster: hosts, credentials, and the choice of client and dialect by the server's product."""

from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from elastic_transport import ConnectionError as NoConnection
from elastic_transport import ConnectionTimeout, HttpHeaders, Urllib3HttpNode
from elastic_transport.client_utils import basic_auth_to_header
from elasticsearch import Elasticsearch
from urllib3 import Timeout
from urllib3.exceptions import ConnectTimeoutError

from common.circuit_breaker import CircuitBreaker
from common.store.elastic.clients import FIRST_FAILURE, ElasticsearchClient, TransportClient
from common.store.elastic.cluster import Cluster
from common.store.elastic.detection import detect
from common.store.elastic.dialects import ElasticsearchDialect, OpenSearchDialect
from common.store.elastic.responses import ANY_PRODUCT, wrap_errors

DEFAULT_PORTS = {"http": 9200, "https": 443}
# One connection per thread of the busiest process; excess connections would be closed after one use.
CONNECTIONS = 32
# A dead machine sends nothing. To a live one, a lost SYN is sent again after 1 s.
CONNECT_WITHIN_S = 3.0


class Signer(Protocol):
    """Signs requests to a server that requires it."""

    def headers(self, method: str, url: str, body: bytes, media_type: str | None) -> Mapping[str, str]:
        """Return the headers that sign a request. Raises StoreUnavailable if it cannot be signed now."""


class _Host(Urllib3HttpNode):
    """A host that is skipped while it does not respond, although a slow response may take long."""

    signer: Signer | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on unchanged
        super().__init__(*args, **kwargs)
        self._breaker = CircuitBreaker()

    def perform_request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: Any = None,  # noqa: ANN401 - the client's types for these have no public names
    ) -> Any:  # noqa: ANN401 - the same
        within: Any = Timeout(total=request_timeout, connect=CONNECT_WITHIN_S)
        if self._breaker.is_open and not self._breaker.may_probe(answer_within_s=request_timeout):
            raise NoConnection("did not respond to the last request")
        headers = self._signed(method, target, body, headers)
        began = monotonic()
        try:
            response = super().perform_request(method, target, body, headers, within)
        except ConnectionTimeout as error:
            self._breaker.trip(waited_s=monotonic() - began)
            if isinstance(error.__cause__, ConnectTimeoutError):
                # No request was sent. The client tries another host after this error, but not after a time-out.
                raise NoConnection(error.message, errors=error.errors) from error
            raise
        self._breaker.reset()
        return response

    def _signed(self, method: str, target: str, body: bytes | None, headers: HttpHeaders | None) -> HttpHeaders | None:
        """Return the headers with a signature of this request to this host."""
        if self.signer is None:
            return headers
        signed = HttpHeaders(headers or {})
        url = f"{self.base_url}{target}"
        signed.update(self.signer.headers(method, url, body or b"", signed.get("content-type")))
        return signed


class Connection:
    """The hosts in `url`, separated by commas; the first call connects and detects the product.

    A host that cannot be reached is skipped, and no request is sent again otherwise: a writer retries its items later,
    and a reader gets the error. `index` is the alias whose mapping identifies the product if `GET /` is not available.
    """

    def __init__(  # noqa: PLR0913 - the options are keyword arguments
        self,
        url: str,
        *,
        index: str,
        timeout_s: float,
        api_key: str | None = None,
        ca_file: Path | None = None,
        signer: Signer | None = None,
    ) -> None:
        hosts, login = split_url(url)
        trust: dict[str, Any] = {"ca_certs": str(ca_file)} if ca_file else {}
        self._index = index
        self._timeout_s = timeout_s
        self._login = _authorization(login, api_key)
        # Only another host is tried, where one cannot be reached.
        self._retries: dict[str, Any] = {
            "max_retries": len(hosts) - 1,
            "retry_on_timeout": False,
            "retry_on_status": (),
        }
        # Its pool of hosts serves both clients.
        self._elasticsearch = Elasticsearch(
            hosts,
            node_class=_Host,
            headers=self._login,
            request_timeout=timeout_s,
            connections_per_node=CONNECTIONS,
            **self._retries,
            **trust,
        )
        for host in self._elasticsearch.transport.node_pool.all():
            cast("_Host", host).signer = signer
        self._cluster: Cluster | None = None

    def cluster(self, *, within_s: float | None = None) -> Cluster:
        """Return the cluster, after the first success without a request. Raises StoreError if it is unsupported."""
        cluster = self._cluster or self._connect(within_s or self._timeout_s)
        return cluster.within(within_s) if within_s else cluster

    def close(self) -> None:
        """Close the connections."""
        self._elasticsearch.close()

    def _connect(self, within_s: float) -> Cluster:
        transport = self._elasticsearch.transport

        def get(target: str) -> object:
            # Every version of both products responds to a request without a version in its Accept header.
            headers = {**self._login, "accept": "*/*"}
            meta, body = transport.perform_request(
                "GET", target, headers=headers, request_timeout=within_s, **self._retries
            )
            return body if meta.status < FIRST_FAILURE else None

        with wrap_errors(ANY_PRODUCT):
            dialect = detect(get, self._index)
        if isinstance(dialect, OpenSearchDialect):
            client = TransportClient(transport, headers=self._login, timeout_s=self._timeout_s, retries=self._retries)
            self._cluster = Cluster(client, dialect)
            return self._cluster
        elasticsearch = ElasticsearchClient(self._elasticsearch)
        if dialect is None:
            # Detected again by the next call. Until then each request reports the reason.
            return Cluster(elasticsearch, ElasticsearchDialect(), product=ANY_PRODUCT)
        self._cluster = Cluster(elasticsearch, dialect)
        return self._cluster


def split_url(url: str) -> tuple[list[str], tuple[str, str] | None]:
    """Return the hosts' URLs without their login, and the login.

    >>> split_url("http://me:s%40fe@search.lan/prefix,https://two.lan,https://three.lan:9200")
    (['http://search.lan:9200/prefix', 'https://two.lan:443', 'https://three.lan:9200'], ('me', 's@fe'))
    """
    hosts, login = [], None
    for one in url.split(","):
        parts = urlsplit(one)
        host = parts.netloc.rpartition("@")[2]
        if parts.port is None:
            host = f"{host.rstrip(':')}:{DEFAULT_PORTS[parts.scheme]}"
        if parts.username:
            login = (unquote(parts.username), unquote(parts.password or ""))
        hosts.append(urlunsplit((parts.scheme, host, parts.path, "", "")))
    return hosts, login


def _authorization(login: tuple[str, str] | None, api_key: str | None) -> dict[str, str]:
    if api_key is not None:
        return {"authorization": f"ApiKey {api_key}"}
    return {"authorization": basic_auth_to_header(login)} if login else {}
