"""The connection to Elasticsearch: hosts and credentials, errors as ours, bodies of bounded size."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

from elastic_transport import ConnectionError as NoConnection
from elastic_transport import ConnectionTimeout, HttpHeaders, Urllib3HttpNode
from elasticsearch import ApiError, Elasticsearch, TransportError, UnsupportedProductError
from urllib3 import Timeout
from urllib3.exceptions import ConnectTimeoutError

from common.circuit_breaker import CircuitBreaker
from common.errors import StoreError, StoreUnavailable

DEFAULT_PORT = 9200
# One connection a thread of the busiest process; those above it would be opened and thrown away.
CONNECTIONS = 32
# A machine that is gone answers nothing at all. A packet lost on the way to one that lives is sent again after 1 s.
CONNECT_WITHIN_S = 3.0
# So long a bulk waits for a shard that is away, before it answers for all. Elasticsearch's own minute is longer than
# anybody waits for the answer: what was stored would not be confirmed either.
SHARD_WITHIN_S = 5
# Bodies stay far below http.max_content_length (100 MiB): a node holds each in memory. A record with the largest
# metadata that a request may bring takes some 2 MiB with its labels, mostly far less.
BULK_BYTES = 8 * 1024 * 1024
REASON_MAX = 500
PARTIAL = "Elasticsearch: a part of the index did not answer"
# The client speaks to servers of its own major version and later; bit vectors would need 8.15.
OLDEST_MAJOR = 9

# An operator, or time, can mend these: away, not created yet, read-only, not allowed, too much at once.
UNAVAILABLE = {401, 403, 404, 408, 429, 500, 502, 503, 504}

Json: TypeAlias = Mapping[str, Any]


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
    if reason := wrong_server(answer):
        raise StoreError(reason)


def wrong_server(answer: object) -> str:
    """Say what is wrong with a server that answers so to GET /.

    >>> wrong_server({"version": {"number": "2.19.1", "distribution": "opensearch"}})
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


@contextmanager
def our_errors() -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except UnsupportedProductError as error:
        raise StoreError("what answers is not Elasticsearch") from error
    except ApiError as error:
        kind = StoreUnavailable if error.status_code in UNAVAILABLE else StoreError
        message = f"Elasticsearch answered {error.status_code}: {_told(error)}"
        raise kind(message) from error
    except TransportError as error:
        message = f"Elasticsearch cannot be reached: {error.message}"[:REASON_MAX]
        raise StoreUnavailable(message) from error


def bulk(client: Elasticsearch, alias: str, lines: Iterable[str]) -> Iterator[Json]:
    """Send actions in bodies of bounded size, one after the other, and yield each action's result."""
    for body in _bodies(lines):
        with our_errors():
            answer = client.bulk(
                index=alias,
                # Else a missing index would be made up, with guessed fields.
                require_alias=True,
                timeout=f"{SHARD_WITHIN_S}s",
                operations=body,  # type: ignore[arg-type] # the client sends strings as they are
            )
        for item in answer["items"]:
            yield from item.values()


def hits(response: Json) -> list[Json]:
    """Return the hits of one search; a search that a part of the index did not answer has none to trust."""
    if error := response.get("error"):
        message = f"Elasticsearch: {reason(error)}"
        raise StoreUnavailable(message) if response["status"] in UNAVAILABLE else StoreError(message)
    if response["timed_out"] or not is_whole(response):
        raise StoreUnavailable(PARTIAL)
    return list(response["hits"]["hits"])


def is_whole(response: Json) -> bool:
    """Say whether every part of the index answered a search or a count."""
    # Not whether one failed: Elasticsearch has long counted a shard that is nowhere as neither success nor failure.
    return bool(response["_shards"]["successful"] == response["_shards"]["total"])


def reason(error: Json) -> str:
    """Return what Elasticsearch says, down to the cause.

    >>> reason({"type": "t", "reason": "failed to parse", "caused_by": {"reason": "no number"}})
    'failed to parse: no number'
    >>> reason({"type": "master_not_discovered_exception", "reason": None})
    'master_not_discovered_exception'
    """
    reasons = []
    cause: Json | None = error
    while cause:
        reasons.append(_first_line(cause.get("reason") or cause.get("type") or "no reason given"))
        cause = cause.get("caused_by")
    return ": ".join(reasons)[-REASON_MAX:]


def _first_line(text: object) -> str:
    """Leave out the documents, which come on further lines, or with the request that is quoted.

    >>> _first_line("primary shard is not active Timeout: [5s], request: [BulkShardRequest [source[{}]]]")
    'primary shard is not active Timeout: [5s]'
    """
    return str(text).partition("\n")[0].partition(", request: [")[0]


def _told(error: ApiError) -> str:
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        # It says whom it refuses, which is nothing for clients.
        return "it refuses our credentials"
    told = error.body.get("error") if isinstance(error.body, dict) else None
    return reason(told) if isinstance(told, dict) else _first_line(error.message)[:REASON_MAX]


def _bodies(lines: Iterable[str]) -> Iterator[list[str]]:
    """Group lines so that no body is larger than BULK_BYTES, save for a line that is so alone."""
    body: list[str] = []
    size = 0
    for line in lines:
        if body and size + len(line) > BULK_BYTES:
            yield body
            body, size = [], 0
        body.append(line)
        size += len(line)
    if body:
        yield body
