"""The HTTP client for downloads and webhooks, within limits on address, time and size.

urllib3 implements HTTP, TLS and connection pools. This module adds three guarantees. Each connection is opened to a
checked address, without a second lookup. Redirects pass the same checks. One thread ends requests that exceed their
total time. The client supports no proxy, cache or local file; cookies live as long as one fetch.

`FetchError.code` is one of:

    bad_url             invalid URL: too long, no host, a space, a backslash, a control character, a port out of range
    forbidden_scheme    neither http nor https
    forbidden_userinfo  a user name or password before the host
    forbidden_port      a port other than 80 and 443 that no setting allows
    private_address     the host is an address that is not public
    unresolvable_host   the name has no address, or one that is not public: both in the same words, so that clients do
                        not learn which names our network has
    connect_failed      no address of the host accepts a connection
    tls_failed          the TLS handshake failed, or the certificate is not trusted for this host
    timeout             no complete response within the total time, or no answer of the resolver
    read_failed         the connection was closed before the response was complete, in the TLS handshake or later
    short_body          the response ended before its declared length
    too_large           more bytes than allowed
    too_many_redirects  more than REDIRECTS_MAX hops
    http_not_found      status 404
    http_gone           status 410
    http_forbidden      status 401 or 403
    http_rate_limited   status 429
    http_server_error   status 500 or higher
    http_status         another status than 200 and 203, which the message contains
    robots_tag          an X-Robots-Tag that forbids the use of the image, if a setting honours them
    encoded_body        a compressed body, although we request `identity`, other than gzip
    bad_response        malformed HTTP, or too many headers
    not_an_image        the first bytes are not those of a supported image format
    closed              the fetcher was closed before

A message contains host and reason. It never contains path, query, fragment or userinfo, because a signed URL is a
secret. It never contains the address of a private name, because clients must not learn our network's names.
"""

import http.client
import logging
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Self, TypeVar
from urllib.parse import urljoin

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util.ssl_ import create_urllib3_context

from common.errors import FetchError
from common.net.addresses import AllowedTarget, Target, check_characters
from common.net.body import BodyRules, Reserve, unlimited
from common.net.connector import Connector, Resolve, TransientFetchError, fetch_failed, resolve
from common.net.cookies import Cookies
from common.net.response import FinalResponse
from common.net.status import check_status
from common.net.watchdog import DOWNLOAD, Download, MinimumRate, Watchdog
from common.version import USER_AGENT

# The Fetch standard's limit for browsers is 20; shorteners and logins of image hosts need up to 10.
REDIRECTS_MAX = 10
# Of a fetch whose connection was closed while it was idle. Other threads may return idle connections of a host as fast
# as it closes them.
REPEATS_MAX = 3
REDIRECT_STATUSES = {301, 302, 303, 307, 308}
# Hosts whose idle connections are kept: most images of a batch are from few hosts.
HOSTS_MAX = 8
# `identity`: a compressed body could grow a thousandfold in memory, and images are compressed already.
HEADERS = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
# Values of X-Robots-Tag that reserve an image from search, or from use by machines.
ROBOTS_TAGS = {"noai", "noimageai", "noindex", "none"}

TIMEOUT = "timeout"
READ_FAILED = "read_failed"

T = TypeVar("T")

# It logs whole URLs, which may be signed: at debug level, and as a warning for an invalid header.
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    headers: Mapping[str, str]
    body: bytes | None = None


class _Connection(HTTPConnection):
    """A connection to a checked address; the watchdog limits each of its requests."""

    response_class = FinalResponse

    def _new_conn(self) -> socket.socket:
        download = DOWNLOAD.get()
        download.is_reused = False
        return download.connect()

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on unchanged
        if self.sock is not None:
            DOWNLOAD.get().guard(self.sock)
        super().request(*args, **kwargs)


class _TlsConnection(_Connection, HTTPSConnection):
    """A connection with TLS."""

    @property
    def is_connected(self) -> bool:
        # urllib3 checks only the socket, but an unsolicited message may be in TLS's buffer.
        return super().is_connected and not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending())


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


@cache
def _default_context(_: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    """Return urllib3's default context with the certificates that the system trusts.

    Loading hundreds of them takes 40 ms.
    """
    context = create_urllib3_context()
    context.load_default_certs()
    return context


class Fetcher:
    """Fetches URLs for many threads at once, within `max_bytes` and `timeout_s` each; close it after use.

    `timeout_s` is the total time of one fetch, including redirects. `allow` lists private targets and other
    ports that are allowed. `accepts` receives the first bytes of each body, and can reject it before the rest is read.
    `headers` returns more headers for a scheme and a host. With `honours_robots_tag`, an image is not fetched that its
    host reserves by an X-Robots-Tag. `pool_size` is the number of idle connections kept to each of the last HOSTS_MAX
    hosts.
    """

    def __init__(  # noqa: PLR0913 - each limit is a keyword argument
        self,
        *,
        max_bytes: int,
        timeout_s: float,
        allow: Sequence[AllowedTarget] = (),
        accepts: Callable[[bytes], bool] = lambda _head: True,
        user_agent: str = USER_AGENT,
        headers: Callable[[str, str], Mapping[str, str]] = lambda _scheme, _host: {},
        honours_robots_tag: bool = False,
        pool_size: int = 32,
        resolve: Resolve = resolve,
    ) -> None:
        self._timeout_s = timeout_s
        self._body = BodyRules(max_bytes, accepts)
        self._user_agent = user_agent
        self._headers = headers
        self._honours_robots_tag = honours_robots_tag
        self._connector = Connector(allow=allow, resolve=resolve, threads=2 * pool_size)
        self._watchdog = Watchdog(timeout_s)
        tls = _default_context(ssl.get_default_verify_paths())
        self._pools = PoolManager(HOSTS_MAX, maxsize=pool_size, timeout=timeout_s, ssl_context=tls)
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def validate(self, url: str) -> Target:
        """Parse a URL. Raises FetchError if `fetch` would reject it without resolving or connecting."""
        return self._connector.validate(url)

    def fetch(self, url: str, *, reserve: Reserve = unlimited, minimum_rate: MinimumRate | None = None) -> bytes:
        """Return the bytes at `url`. Raises FetchError and no other exception, except those of `reserve`.

        It tries once: TransientFetchError is an error that a later fetch may avoid.

        `reserve` is called with the number of bytes that the body may have before the body is read, and with their
        real number after that. It may wait for half of the time that is left. A body below the `minimum_rate` is ended
        like one that exceeds the total time.
        """
        target = self._connector.validate(url)
        with self._timed(target, minimum_rate) as download:
            return self._fetch(target, download, reserve)

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send `body` once and return the response's status, without following redirects or reading the response body.

        Raises FetchError, and no other exception, when no response arrives.
        """
        target = self._connector.validate(url)
        # A new connection: an idle one may be closed by the server meanwhile, and a POST must not be sent twice.
        request = _Request("POST", {"User-Agent": self._user_agent, "Connection": "close", **headers}, body)
        with self._timed(target) as download:
            return self._exchange(target, download, lambda response: response.status, request)

    def close(self) -> None:
        """Close the idle connections and start no more fetches; running ones continue."""
        self._watchdog.close()
        self._pools.clear()
        self._connector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _timed(self, target: Target, minimum_rate: MinimumRate | None = None) -> Iterator[Download]:
        """Limit the time of the requests inside the `with`."""
        with self._watchdog.watched(minimum_rate) as download:
            try:
                yield download
            except FetchError as error:
                if download.left_s or error.code == TIMEOUT:
                    raise
                # The watchdog shut the connection down, which caused the other error.
                reason = f"sent no complete response within {self._timeout_s:g} s"
                if download.is_slow:
                    reason = "sent its response too slowly"
                raise fetch_failed(TIMEOUT, target.host, reason) from error

    def _fetch(self, target: Target, download: Download, reserve: Reserve) -> bytes:
        for _ in range(REPEATS_MAX):
            try:
                return self._follow_redirects(target, download, reserve)
            except TransientFetchError as error:
                # The server closed an idle connection while the request was on its way (RFC 9112, 9.5). The pool has
                # dropped that connection.
                if error.code != READ_FAILED or not download.is_reused or not download.left_s:
                    raise
        return self._follow_redirects(target, download, reserve)

    def _follow_redirects(self, target: Target, download: Download, reserve: Reserve) -> bytes:
        cookies = Cookies()
        for _ in range(1 + REDIRECTS_MAX):
            read = partial(self._read, target=target, download=download, reserve=reserve, cookies=cookies)
            outcome = self._exchange(target, download, read, self._get(target, cookies))
            if isinstance(outcome, bytes):
                return outcome
            target = outcome
        raise fetch_failed("too_many_redirects", target.host, f"is reached after more than {REDIRECTS_MAX} redirects")

    def _get(self, target: Target, cookies: Cookies) -> _Request:
        headers = {
            "User-Agent": self._user_agent,
            **HEADERS,
            **self._headers(target.scheme, target.host),
            **cookies.header(target.url),
        }
        return _Request("GET", headers)

    def _exchange(
        self,
        target: Target,
        download: Download,
        read: Callable[[BaseHTTPResponse], T],
        request: _Request,
    ) -> T:
        """Send one request, and return the result of `read` for its response."""
        download.connect = partial(self._connector.connect, target, download)
        # Until a new connection is opened.
        download.is_reused = True
        # The pool is chosen by scheme, host and port, and only the path is passed: urllib3 parses no URL.
        pool = self._pools.connection_from_host(target.host, target.port, target.scheme)
        urlopen = partial(pool.urlopen, retries=False, redirect=False, preload_content=False, decode_content=False)
        try:
            # Closing an unfinished response also closes its connection.
            with closing(urlopen(request.method, target.path, request.body, request.headers)) as response:
                outcome = read(response)
            # A body without a length looks complete after the watchdog has shut its connection down.
            download.check()
        except (HTTPError, OSError) as error:
            raise _fetch_error(target.host, error) from error
        finally:
            download.release()
        return outcome

    def _read(
        self, response: BaseHTTPResponse, target: Target, download: Download, reserve: Reserve, cookies: Cookies
    ) -> bytes | Target:
        """Return the body, or the target of a redirect."""
        location = response.headers.get("location")
        if response.status in REDIRECT_STATUSES and location:
            cookies.keep(response, target.url)
            return self._redirected(target, location)
        check_status(response.status, target.host, response.headers.get("retry-after"))
        if self._honours_robots_tag:
            _check_robots_tag(response, target.host)
        return self._body.read(response, target.host, reserve, download)

    def _redirected(self, target: Target, location: str) -> Target:
        try:
            # http.client decodes headers as latin-1, but servers that send more than ASCII send UTF-8.
            location = location.encode("latin-1").decode(errors="replace").strip(" ")
            # urljoin would drop characters that we reject.
            check_characters(location)
            return self._connector.validate(urljoin(target.url, location))
        except FetchError as error:
            raise fetch_failed(error.code, target.host, f"redirects to a forbidden URL: {error}") from None
        except ValueError:
            raise fetch_failed("bad_url", target.host, "redirects to an invalid URL") from None


def _check_robots_tag(response: BaseHTTPResponse, host: str) -> None:
    """Raise FetchError if the host reserves the image: for everybody, or for a robot that it names."""
    tags = re.split(r"[,:\s]+", ",".join(response.headers.getlist("x-robots-tag")).lower())
    if not ROBOTS_TAGS.isdisjoint(tags):
        raise fetch_failed("robots_tag", host, "reserves the image by an X-Robots-Tag (MATCH_FETCH_HONOUR_ROBOTS_TAG)")


def _fetch_error(host: str, error: HTTPError | OSError) -> FetchError:
    """Return the FetchError for an exception of urllib3, http.client, the socket or TLS."""
    # urllib3 wraps the exceptions of the layers below it.
    cause = error.args[-1] if isinstance(error, HTTPError) and error.args else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return fetch_failed("tls_failed", host, f"has a certificate that is not trusted: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError):
        return fetch_failed("tls_failed", host, "failed the TLS handshake")
    if isinstance(cause, http.client.IncompleteRead):
        return fetch_failed("short_body", host, "ended its response early", transient=True)
    if isinstance(cause, OSError):
        return fetch_failed(READ_FAILED, host, "closed the connection", transient=True)
    return fetch_failed("bad_response", host, "sent a malformed HTTP response")
