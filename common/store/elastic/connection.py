"""The connection to Elasticsearch: hosts, credentials, and the check of the server's version."""

from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from elastic_transport import ConnectionError as NoConnection
from elastic_transport import ConnectionTimeout, HttpHeaders, Urllib3HttpNode
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError
from urllib3 import Timeout
from urllib3.exceptions import ConnectTimeoutError

from common.circuit_breaker import CircuitBreaker
from common.errors import StoreError

DEFAULT_PORT = 9200
# One connection per thread of the busiest process; excess connections would be closed after one use.
CONNECTIONS = 32
# A dead machine sends nothing. To a live one, a lost SYN is sent again after 1 s.
CONNECT_WITHIN_S = 3.0
# The client supports servers of its own major version and later; bit vectors need only 8.15.
OLDEST_MAJOR = 9


class _Host(Urllib3HttpNode):
    """A host that is skipped while it does not respond, although a slow response may take long."""

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


def connect(url: str, *, timeout_s: float, api_key: str | None = None, ca_file: Path | None = None) -> Elasticsearch:
    """Return a client for the hosts in `url`, separated by commas; it connects at its first call.

    It skips a host that cannot be reached, and does not retry otherwise: a writer retries its items later, and a reader
    gets the error.
    """
    hosts, login = split_url(url)
    trust: dict[str, Any] = {"ca_certs": str(ca_file)} if ca_file else {}
    return Elasticsearch(
        hosts,
        node_class=_Host,
        basic_auth=login,
        api_key=api_key,
        request_timeout=timeout_s,
        max_retries=len(hosts) - 1,
        retry_on_timeout=False,
        retry_on_status=(),
        connections_per_node=CONNECTIONS,
        **trust,
    )


def split_url(url: str) -> tuple[list[str], tuple[str, str] | None]:
    """Return the hosts' URLs without their login, and the login.

    >>> split_url("http://me:s%40fe@search.lan/prefix,https://two.lan:443")
    (['http://search.lan:9200/prefix', 'https://two.lan:443'], ('me', 's@fe'))
    """
    hosts, login = [], None
    for one in url.split(","):
        parts = urlsplit(one)
        host = parts.netloc.rpartition("@")[2]
        if parts.port is None:
            host = f"{host.rstrip(':')}:{DEFAULT_PORT}"
        if parts.username:
            login = (unquote(parts.username), unquote(parts.password or ""))
        hosts.append(urlunsplit((parts.scheme, host, parts.path, "", "")))
    return hosts, login


def require_elasticsearch(client: Elasticsearch) -> None:
    """Raise StoreError if the server is not Elasticsearch, or too old."""
    try:
        # Every version responds to a request without a version in its Accept header.
        info = client.perform_request("GET", "/", headers={"accept": "*/*"}).body
    except UnsupportedProductError as error:
        info = error.body
    except ApiError:
        # Not authorized for this request; the next one may succeed, or report the reason.
        return
    if reason := why_unsupported(info):
        raise StoreError(reason)


def why_unsupported(info: object) -> str:
    """Return the reason why a server cannot be used, or ""; `info` is its response to GET /.

    >>> why_unsupported({"version": {"number": "2.19.1", "distribution": "opensearch"}})
    'the server is opensearch 2.19.1: Match needs Elasticsearch 9 or later'
    """
    version = info.get("version") if isinstance(info, Mapping) else None
    number = str(version.get("number")) if isinstance(version, Mapping) else ""
    if not isinstance(version, Mapping) or not number[:1].isdigit():
        return "the server is not Elasticsearch"
    if distribution := version.get("distribution"):
        return f"the server is {distribution} {number}: Match needs Elasticsearch {OLDEST_MAJOR} or later"
    if int(number.partition(".")[0]) < OLDEST_MAJOR:
        return f"Elasticsearch {number} is too old: Match needs {OLDEST_MAJOR} or later"
    return ""
