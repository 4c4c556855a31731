"""The connection to Elasticsearch: its hosts and credentials, and whether it is an Elasticsearch that we can use."""

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
# One connection a thread of the busiest process; those above it would be opened and thrown away.
CONNECTIONS = 32
# A machine that is gone answers nothing at all. A packet lost on the way to one that lives is sent again after 1 s.
CONNECT_WITHIN_S = 3.0
# The client speaks to servers of its own major version and later; bit vectors would need 8.15.
OLDEST_MAJOR = 9


class _Host(Urllib3HttpNode):
    """A host that is passed over when it takes no connection or is silent, however long its answers may take."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
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
            raise NoConnection("silent a moment ago")
        began = monotonic()
        try:
            answer = super().perform_request(method, target, body, headers, within)
        except ConnectionTimeout as error:
            self._breaker.trip(waited_s=monotonic() - began)
            if isinstance(error.__cause__, ConnectTimeoutError):
                # Nothing was sent. The client tries another host after this error, and after a time-out none.
                raise NoConnection(error.message, errors=error.errors) from error
            raise
        self._breaker.reset()
        return answer


def connect(url: str, *, timeout_s: float, api_key: str | None = None, ca_file: Path | None = None) -> Elasticsearch:
    """Return a client for the hosts in `url`, separated by commas; nothing is sent before its first call.

    A host that cannot be reached is passed over; else calls are not repeated: a writer holds its items and comes back,
    a reader is told.
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
        place = parts.netloc.rpartition("@")[2]
        if parts.port is None:
            place = f"{place.rstrip(':')}:{DEFAULT_PORT}"
        if parts.username:
            login = (unquote(parts.username), unquote(parts.password or ""))
        hosts.append(urlunsplit((parts.scheme, place, parts.path, "", "")))
    return hosts, login


def require_elasticsearch(client: Elasticsearch) -> None:
    """Raise StoreError when something else answers, or an Elasticsearch that is too old for us."""
    try:
        # Without a version in its Accept header a request is answered by every server there has been.
        answer = client.perform_request("GET", "/", headers={"accept": "*/*"}).body
    except UnsupportedProductError as error:
        answer = error.body
    except ApiError:
        # Not allowed to ask: then what comes next has to tell.
        return
    if reason := why_unsupported(answer):
        raise StoreError(reason)


def why_unsupported(answer: object) -> str:
    """Say what is wrong with a server that answers so to GET /.

    >>> why_unsupported({"version": {"number": "2.19.1", "distribution": "opensearch"}})
    'opensearch 2.19.1 answers: Match needs Elasticsearch 9 or later'
    """
    version = answer.get("version") if isinstance(answer, Mapping) else None
    number = str(version.get("number")) if isinstance(version, Mapping) else ""
    if not isinstance(version, Mapping) or not number[:1].isdigit():
        return "what answers is not Elasticsearch"
    if distribution := version.get("distribution"):
        return f"{distribution} {number} answers: Match needs Elasticsearch {OLDEST_MAJOR} or later"
    if int(number.partition(".")[0]) < OLDEST_MAJOR:
        return f"Elasticsearch {number} is too old: Match needs {OLDEST_MAJOR} or later"
    return ""
