"""HTTP from us to others: URL to bytes, and a post, within limits on address, time and size.

urllib3 speaks HTTP and TLS and keeps connections. What is ours: each connection goes to an address that was judged
(between check and use nothing is resolved again), redirects and retries take the same way, and one thread ends what
takes too long. It knows no proxy, no cookie, no cache and no local file. `FetchError.code` is one of:

    bad_url             no URL that we read: too long, no host, a space, a backslash, a control character, an odd port
    forbidden_scheme    neither http nor https
    forbidden_userinfo  a user name or password before the host
    forbidden_port      a port other than 80 and 443 that no setting allows
    private_address     written as, or resolved to, an address that is not public
    unresolvable_host   the name has no address
    connect_failed      no address of the host took the connection
    tls_failed          no TLS, or no certificate that we trust for this host
    timeout             no complete answer within the total time
    read_failed         the connection broke before the answer was complete, in the TLS handshake or later
    short_body          the answer ended before its own length
    too_large           more bytes than allowed
    too_many_redirects  more than REDIRECTS_MAX hops
    http_status         a status other than 200; the message has it
    encoded_body        compressed on the way, although we ask for the bytes as they are
    bad_response        no HTTP that we read, or too many headers
    not_an_image        the first bytes are no picture's
    closed              the fetcher was closed before

A message names host and reason, but never path, query, fragment or userinfo (a signed URL is a secret), and never the
address that a private name has: the sender of a URL must not learn our network's names.
"""

import http.client
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar
from urllib.parse import urljoin

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util.ssl_ import create_urllib3_context

from common.errors import FetchError
from common.net.addresses import AllowedTarget, Target, refuse_odd_text
from common.net.dialing import Dialer, Resolve, TransientFetchError, fetch_failed, resolve
from common.net.watchdog import DOWNLOAD, Download, Watchdog

REDIRECTS_MAX = 4
REDIRECT_STATUSES = {301, 302, 303, 307, 308}
# Waits between the tries of one fetch: enough for a dropped connection; an outage is the queue's to wait for.
PAUSES_S = (0.1, 0.4)
RETRIED_STATUSES = {408, 425, 429}
# Hosts whose idle connections are kept: a bulk of pictures comes from few.
HOSTS_MAX = 8
READ_BYTES = 64 * 1024
# Enough for the signature of every picture format.
SNIFF_BYTES = 512
COMPRESSIONS = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"}
# `identity`: a compressed body could grow a thousandfold in memory, and pictures are compressed already.
HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; Match)",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",
}

T = TypeVar("T")

# It logs whole URLs, which may be signed, at debug level and, for an odd header, as a warning.
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    headers: Mapping[str, str]
    body: bytes | None = None


_GET = _Request("GET", HEADERS)


class _Connection(HTTPConnection):
    """A connection to an address that was judged, watched in each of its requests."""

    def _new_conn(self) -> socket.socket:
        return DOWNLOAD.get().dial()

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
        if self.sock is not None:
            DOWNLOAD.get().guard(self.sock)
        super().request(*args, **kwargs)


class _TlsConnection(_Connection, HTTPSConnection):
    """The same, with TLS."""

    @property
    def is_connected(self) -> bool:
        # urllib3 asks the socket alone, but what was sent unasked may be in TLS's buffer.
        return super().is_connected and not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending())


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Fetcher:
    """Fetches URLs for many threads at once, within `max_bytes` and `timeout_s` each; close it when done.

    `timeout_s` is the total time of one fetch, its redirects and retries included. `allow` names what may be fetched
    although it is private, or at another port. `accepts` sees the first bytes of each body, and may refuse it before
    the rest is read. `pool_size` is the number of idle connections kept to each of the last HOSTS_MAX hosts.
    """

    def __init__(  # noqa: PLR0913 - every limit is the caller's to set, each by name
        self,
        *,
        max_bytes: int,
        timeout_s: float,
        allow: Sequence[AllowedTarget] = (),
        accepts: Callable[[bytes], bool] = lambda _head: True,
        pool_size: int = 32,
        resolve: Resolve = resolve,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._accepts = accepts
        self._dialer = Dialer(allow=allow, resolve=resolve, threads=2 * pool_size)
        self._watchdog = Watchdog(timeout_s)
        # urllib3's own default, made once: it reads the hundreds of certificates that the system trusts.
        tls = create_urllib3_context()
        tls.load_default_certs()
        self._pools = PoolManager(HOSTS_MAX, maxsize=pool_size, timeout=timeout_s, ssl_context=tls)
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def vet(self, url: str) -> Target:
        """Return what `url` asks for, or raise FetchError if `fetch` refuses it without resolving or connecting."""
        return self._dialer.vet(url)

    def fetch(self, url: str) -> bytes:
        """Return the bytes at `url`, or raise FetchError and nothing else."""
        target = self._dialer.vet(url)
        with self._timed(target) as download:
            return self._fetch_with_retries(target, download)

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send `body` once, follow nothing, and return the answer's status, whatever it is.

        Raises FetchError, and nothing else, when there is no answer. What the answer holds is not read.
        """
        target = self._dialer.vet(url)
        # A connection that was kept may have been closed meanwhile, and to send twice is not ours to decide.
        request = _Request("POST", {"User-Agent": HEADERS["User-Agent"], "Connection": "close", **headers}, body)
        with self._timed(target) as download:
            return self._exchange(target, download, lambda response: response.status, request)

    def close(self) -> None:
        """Close the idle connections and begin no more fetches; running ones go on to their end."""
        self._watchdog.close()
        self._pools.clear()
        self._dialer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _timed(self, target: Target) -> Iterator[Download]:
        """Watch the time of what goes on inside the `with`."""
        with self._watchdog.watched() as download:
            try:
                yield download
            except FetchError as error:
                if download.left_s:
                    raise
                # Whatever broke when the connection was shut, this is why.
                reason = f"gave no complete answer within {self._timeout_s:g} s"
                raise fetch_failed("timeout", target.host, reason) from error

    def _fetch_with_retries(self, target: Target, download: Download) -> bytes:
        for pause_s in PAUSES_S:
            try:
                return self._follow_redirects(target, download)
            except TransientFetchError:
                if download.left_s <= pause_s:
                    raise
                time.sleep(pause_s)
        return self._follow_redirects(target, download)

    def _follow_redirects(self, target: Target, download: Download) -> bytes:
        for _ in range(1 + REDIRECTS_MAX):
            answer = self._exchange(target, download, partial(self._read, target=target), _GET)
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise fetch_failed("too_many_redirects", target.host, f"is reached after more than {REDIRECTS_MAX} redirects")

    def _exchange(
        self,
        target: Target,
        download: Download,
        read: Callable[[BaseHTTPResponse], T],
        request: _Request,
    ) -> T:
        """Send one request, and return what `read` makes of its answer."""
        download.dial = partial(self._dialer.dial, target, download)
        # The pool by its parts, and the path alone: urllib3 has no URL to read.
        pool = self._pools.connection_from_host(target.host, target.port, target.scheme)
        urlopen = partial(pool.urlopen, retries=False, redirect=False, preload_content=False, decode_content=False)
        try:
            # Closed before its end, a response takes its connection along.
            with closing(urlopen(request.method, target.path, request.body, request.headers)) as response:
                answer = read(response)
            # A body without a length looks complete when the watchdog has shut its connection.
            download.check()
        except (HTTPError, OSError) as error:
            raise _explained(target.host, error) from error
        finally:
            download.let_go()
        return answer

    def _read(self, response: BaseHTTPResponse, target: Target) -> bytes | Target:
        """Return the body, or what the answer redirects to."""
        location = response.headers.get("location")
        if response.status in REDIRECT_STATUSES and location:
            return self._redirected(target, location)
        _refuse_head(response, target.host)
        return self._read_body(response, target.host)

    def _redirected(self, target: Target, location: str) -> Target:
        try:
            # http.client reads headers as latin-1; those who send more than ASCII mean UTF-8.
            location = location.encode("latin-1").decode(errors="replace")
            # urljoin would drop the very characters that we refuse.
            refuse_odd_text(location)
            return self._dialer.vet(urljoin(target.url, location))
        except FetchError as error:
            raise fetch_failed(error.code, target.host, f"redirects to what is not fetched: {error}") from None
        except ValueError:
            raise fetch_failed("bad_url", target.host, "redirects to what cannot be read") from None

    def _read_body(self, response: BaseHTTPResponse, host: str) -> bytes:
        # A list of pieces would cost 40 times the bytes when a server sends them one by one.
        body = bytearray()
        while len(body) < SNIFF_BYTES and self._read_piece(response, body, host):
            pass
        if not self._accepts(bytes(body[:SNIFF_BYTES])):
            raise fetch_failed("not_an_image", host, "sent something that is no picture")
        while self._read_piece(response, body, host):
            pass
        return bytes(body)

    def _read_piece(self, response: BaseHTTPResponse, body: bytearray, host: str) -> bool:
        """Read some more of the body; return False at its end."""
        if len(body) + (response.length_remaining or 0) > self._max_bytes:
            raise fetch_failed("too_large", host, f"sends more than {self._max_bytes} bytes")
        piece = response.read1(READ_BYTES)
        body += piece
        return bool(piece)


def _refuse_head(response: BaseHTTPResponse, host: str) -> None:
    """Raise FetchError for an answer whose status or headers already show that its body is of no use."""
    if response.status != http.client.OK:
        transient = response.status in RETRIED_STATUSES or response.status >= http.client.INTERNAL_SERVER_ERROR
        raise fetch_failed("http_status", host, f"answered with status {response.status}", transient=transient)
    # Other words are labels, such as the "aws-chunked" that object stores keep: their bytes are as they are.
    if not COMPRESSIONS.isdisjoint(re.split(r"[,\s]+", response.headers.get("content-encoding", "").lower())):
        raise fetch_failed("encoded_body", host, "sent a compressed body")
    if response.headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise fetch_failed("bad_response", host, "sent an unknown transfer encoding")


def _explained(host: str, error: HTTPError | OSError) -> FetchError:
    """Return our error for what urllib3, or what it is made of, has raised."""
    # urllib3 wraps what http.client, the socket or TLS raised.
    cause = error.args[-1] if isinstance(error, HTTPError) and error.args else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return fetch_failed("tls_failed", host, f"has a certificate that is not trusted: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError):
        return fetch_failed("tls_failed", host, "does not speak TLS as we do")
    if isinstance(cause, http.client.IncompleteRead):
        return fetch_failed("short_body", host, "ended its answer too early", transient=True)
    if isinstance(cause, OSError):
        return fetch_failed("read_failed", host, "broke the connection off", transient=True)
    return fetch_failed("bad_response", host, "sent no HTTP answer that can be read")
