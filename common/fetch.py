"""URL to bytes, within limits on address, time and size.

A URL is read once, strictly, into a `_Target`; whatever is judged, resolved, connected to and asked for is that target,
so no second parser can see another host. The name is resolved here, every answer must be permitted, and the socket is
connected to one of those very addresses: between check and use nothing is resolved again. http.client only reads the
answer, from a socket that it was handed. It knows no proxy, no cookie, no cache and no local file.

`FetchError.code` is one of:

    bad_url             no URL that we read: too long, no host, a space, a backslash, a control character, an odd port
    forbidden_scheme    neither http nor https
    forbidden_userinfo  a user name or password before the host
    forbidden_port      a port other than 80 and 443 that no setting allows
    private_address     written as, or resolved to, an address that is not public
    unresolvable_host   the name has no address
    connect_failed      no address of the host took the connection
    tls_failed          no TLS, or no certificate that we trust for this host
    timeout             no complete answer within the total time
    read_failed         the connection broke before the answer was complete
    short_body          the answer ended before its own length
    too_large           more bytes than allowed
    too_many_redirects  more than REDIRECTS_MAX hops
    http_status         a status other than 200; the message has it
    encoded_body        compressed on the way, although we ask for the bytes as they are
    bad_response        no HTTP that we read, or a head without end
    not_an_image        the first bytes are no picture's
    closed              the fetcher was closed before

A message names host and reason, but never path, query, fragment or userinfo (a signed URL is a secret), and never the
address that a private name has: the sender of a URL must not learn our network's names.
"""

import contextlib
import functools
import http.client
import io
import ipaddress
import re
import select
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urljoin

from common.config import AllowedTarget
from common.errors import FetchError

URL_MAX_BYTES = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECTS_MAX = 4
# Waits between the tries of one fetch: enough for a dropped connection; an outage is the queue's to wait for.
PAUSES_S = (0.1, 0.4)
RETRIED_STATUSES = {408, 425, 429}
REDIRECT_STATUSES = {301, 302, 303, 307, 308}
# A SYN is repeated after 1 and 3 s: whoever has not answered then will hardly do so.
CONNECT_TIMEOUT_S = 5.0
# A name may have hundreds of addresses; each that is dead costs time.
ADDRESSES_MAX = 4
# Far above any honest head, far below what 100 header lines of 64 KiB or a flood of "100 Continue" could cost.
HEAD_MAX_BYTES = 64 * 1024
READ_BYTES = 64 * 1024
# Enough for the signature of every picture format.
SNIFF_BYTES = 512
# Under the keep-alive time of most servers, so that few connections are found dead.
IDLE_MAX_S = 30.0
COMPRESSIONS = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"}

# `identity`: a compressed body could grow a thousandfold in memory, and pictures are compressed already.
_HEADERS = "User-Agent: Mozilla/5.0 (compatible; Match)\r\nAccept: image/*,*/*;q=0.5\r\nAccept-Encoding: identity\r\n"

# ipaddress.is_global is not enough: it differs between Python versions, and says yes to multicast and to IPv6 forms
# that carry an IPv4 address inside.
_IPV4_NOT_PUBLIC = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host: 0.0.0.0 reaches loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' NAT; a cloud keeps its metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's own control plane, reached from its machines only
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; a cloud keeps its metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# Only this was ever given out; outside lie loopback, v4-mapped, v4-compatible, NAT64, unique local, link-local,
# site-local and multicast addresses.
_IPV6_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")
_IPV6_NOT_PUBLIC = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, among them Teredo, which carries an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
)

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30}):", re.IGNORECASE)
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<target>[^#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(
    r"(?:\[(?P<literal>[0-9a-z:.%]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{0,5}))?", re.IGNORECASE
)
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")

Resolve = Callable[[str], Sequence[str]]
_Origin = tuple[str, str, int]


class _PassingError(FetchError):
    """A FetchError that another try may not meet."""


def _failed(code: str, host: str, reason: str, *, passing: bool = False) -> FetchError:
    return (_PassingError if passing else FetchError)(f"{host} {reason}", code=code)


def _bad(reason: str) -> FetchError:
    return _failed("bad_url", "the URL", reason)


def is_public(address: str) -> bool:
    """Say whether an IP address, as text, belongs to the public internet.

    >>> [is_public(address) for address in ("1.1.1.1", "10.0.0.1", "::ffff:1.1.1.1", "2606:4700::1111")]
    [True, False, False, True]
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _IPV4_NOT_PUBLIC)
    if parsed.scope_id is not None or parsed not in _IPV6_GIVEN_OUT:
        return False
    return not any(parsed in network for network in _IPV6_NOT_PUBLIC)


def resolve(host: str) -> list[str]:
    """Return the addresses that the system's resolver has for a name, best first."""
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in answers]


@dataclass(frozen=True, slots=True)
class _Target:
    """What a URL asks for: `host` is ASCII, lower case and without a dot at its end; `path` includes the query.

    `is_literal`: `host` is an IP address in its canonical form.
    """

    scheme: str
    host: str
    port: int
    path: str
    is_literal: bool

    @property
    def origin(self) -> _Origin:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    def request(self) -> bytes:
        return f"GET {self.path} HTTP/1.1\r\nHost: {self.authority}\r\n{_HEADERS}\r\n".encode("ascii")


def _read_url(url: str) -> _Target:
    """Read a URL strictly: what two parsers could read differently is refused."""
    _refuse_odd_text(url)
    match = _URL.match(url)
    if match is None:
        raise _wrong_start(url)
    scheme = match["scheme"].lower()
    host, port, is_literal = _read_authority(match["authority"], DEFAULT_PORTS[scheme])
    path = quote(match["target"], safe="!#$%&'()*+,/:;=?@[]~")
    return _Target(scheme, host, port, path if path.startswith("/") else f"/{path}", is_literal)


def _refuse_odd_text(url: str) -> None:
    # str.isprintable is false for control and format characters, for lone surrogates and for every space but one.
    if not url.isprintable() or " " in url or "\\" in url:
        raise _bad("has a space, a backslash or a control character")
    if len(url.encode()) > URL_MAX_BYTES:
        raise _failed("bad_url", "the URL", f"is longer than {URL_MAX_BYTES} bytes")


def _wrong_start(url: str) -> FetchError:
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1].lower() in DEFAULT_PORTS:
        return _bad("must start with http:// or https://")
    return _failed("forbidden_scheme", scheme[1].lower(), "is not fetched, only http and https are")


def _read_authority(authority: str, default_port: int) -> tuple[str, int, bool]:
    if "@" in authority:
        raise _failed("forbidden_userinfo", "the URL", "has a user name or password before its host")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _bad("has no host, or one that cannot be read")
    port = int(match["port"] or default_port)
    if not 0 < port <= 65_535:  # noqa: PLR2004 - the largest TCP port
        raise _bad("has a port out of range")
    if match["literal"]:
        return _read_ipv6(match["literal"]), port, True
    host = _read_name(match["name"])
    return host, port, _is_number(host)


def _read_ipv6(literal: str) -> str:
    try:
        return str(ipaddress.IPv6Address(literal))
    except ValueError:
        raise _bad("has no IPv6 address between its brackets") from None


def _read_name(name: str) -> str:
    """Return the name as DNS, certificate and Host header know it, or the address that it spells."""
    try:
        # The codec folds full-width dots, circled digits and the like, so that what follows sees what they mean.
        ascii_name = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        raise _bad("has a host name that does not exist in DNS") from None
    # IDNA 2003, which Python has, and 2008 send these two to different hosts.
    if not {"ß", "ẞ", "ς"}.isdisjoint(name):
        raise _bad("has a host name that has to be written as xn--…")
    host = ascii_name.lower().removesuffix(".")
    if not _NAME.fullmatch(host):
        raise _bad("has no valid host name")
    return _read_ipv4(host) if _is_number(host) else host


def _is_number(host: str) -> bool:
    """Say whether a host is an address to any resolver: no top-level domain is a number."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _read_ipv4(host: str) -> str:
    """Return the address that decimal, octal, hex and short forms mean to inet_aton.

    >>> _read_ipv4("0x7f.1")
    '127.0.0.1'
    """
    parts = host.split(".")
    try:
        *heads, last = [_read_number(part) for part in parts]
        high = bytes(heads)
        return str(ipaddress.IPv4Address(high + last.to_bytes(4 - len(high), "big")))
    except (ValueError, OverflowError):
        raise _bad("has a number for a host that is no address") from None


def _read_number(part: str) -> int:
    if not _NUMBER.fullmatch(part):
        raise ValueError(part)
    base = 16 if part.startswith("0x") else 8 if part.startswith("0") else 10
    return int(part.removeprefix("0x") or "0", base)


class _Download:
    """One fetch's time, and the socket to shut when it is over."""

    __slots__ = ("_ends", "_lock", "_socket")

    def __init__(self, span_s: float) -> None:
        self._ends = time.monotonic() + span_s
        # Without it, the watchdog could shut a descriptor that was closed and given to somebody else meanwhile.
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    @property
    def left_s(self) -> float:
        return max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        if not self.left_s:
            raise TimeoutError

    def guard(self, connected: socket.socket) -> None:
        """Have this socket shut when the time is over; it must not be closed before `let_go`."""
        with self._lock:
            self.check()
            self._socket = connected

    def let_go(self) -> None:
        with self._lock:
            self._socket = None

    def end(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                # SSLSocket's own shutdown drops TLS first: the reader would then take ciphertext for the body.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Watchdog:
    """Ends every download whose time is over.

    A socket's own time-out starts anew with each byte. All downloads have the same span, so the first begun is the
    first to end: one thread and an ordered dict do, and the thread wakes about once a span.
    """

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._running: OrderedDict[_Download, None] = OrderedDict()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def begin(self) -> _Download:
        with self._changed:
            if self._closed:
                raise FetchError("the fetcher is closed", code="closed")
            if self._thread is None:
                # Not before: a fetcher made before a fork would lose its thread.
                thread = threading.Thread(target=self._watch, name="match-fetch-watchdog", daemon=True)
                thread.start()
                self._thread = thread
            download = _Download(self._span_s)
            if not self._running:
                self._changed.notify()
            self._running[download] = None
        return download

    def forget(self, download: _Download) -> None:
        with self._changed:
            self._running.pop(download, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while self._running or not self._closed:
                first = next(iter(self._running), None)
                if first is not None and not first.left_s:
                    del self._running[first]
                    first.end()
                else:
                    self._changed.wait(first.left_s if first else None)


class _Meter(io.RawIOBase):
    """A socket's bytes, so many and no more."""

    def __init__(self, raw: io.RawIOBase, allowance: int) -> None:
        self._raw = raw
        self._left: int | None = allowance

    def allow(self, allowance: int) -> None:
        self._left = allowance

    def seal(self) -> None:
        """Read nothing from now on: what the buffer above has then was sent unasked."""
        self._left = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any buffer, as BufferedReader gives it
        if self._left is None:
            return 0
        if self._left <= 0:
            message = "more bytes than an honest answer has"
            raise http.client.HTTPException(message)
        count = self._raw.readinto(buffer) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """A buffered reader that remembers whether anything was left when it was closed."""

    is_empty = False

    def __init__(self, meter: _Meter) -> None:
        super().__init__(meter)
        self._meter = meter

    def close(self) -> None:
        if not self.closed:
            self._meter.seal()
            self.is_empty = not self.peek(1)
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer whose head, and then body, may cost so many bytes on the wire, framing included."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected, method="GET")
        self._meter = _Meter(self.fp.detach(), HEAD_MAX_BYTES)
        self._reader = self.fp = _Reader(self._meter)

    def allow_body(self, max_bytes: int) -> None:
        # Chunks of one byte each would cost six times their bytes, and all our time.
        self._meter.allow(max_bytes + max_bytes // 8 + HEAD_MAX_BYTES)

    def leaves_connection(self) -> bool:
        """Say, once the body was read, whether the next request may use this connection."""
        self.close()
        return not self.will_close and self._reader.is_empty


class _IdleConnections:
    """Connections that wait for the next request to their origin, the longest unused leave first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: list[tuple[_Origin, socket.socket, float]] = []
        self._lock = threading.Lock()

    def take(self, origin: _Origin) -> socket.socket | None:
        while (idle := self._pop(origin)) is not None:
            connected, since = idle
            if time.monotonic() - since < IDLE_MAX_S and _is_quiet(connected):
                return connected
            connected.close()
        return None

    def put(self, origin: _Origin, connected: socket.socket) -> None:
        with self._lock:
            self._idle.append((origin, connected, time.monotonic()))
            gone = self._idle.pop(0)[1] if len(self._idle) > self._size else None
        if gone is not None:
            gone.close()

    def close(self) -> None:
        with self._lock:
            self._size = 0
            idle, self._idle = self._idle, []
        for _, connected, _ in idle:
            connected.close()

    def _pop(self, origin: _Origin) -> tuple[socket.socket, float] | None:
        """Return the origin's youngest; a scan, because there are few dozens."""
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index][0] == origin:
                    return self._idle.pop(index)[1:]
        return None


def _is_quiet(connected: socket.socket) -> bool:
    """Say whether an idle connection is still open, and nothing was sent on it unasked."""
    if isinstance(connected, ssl.SSLSocket) and connected.pending():
        return False
    poll = select.poll()  # select.select fails on descriptors above 1023
    poll.register(connected, select.POLLIN)
    return not poll.poll(0)


class _Resolver:
    """Names to addresses, within a download's time.

    The system's resolver cannot be interrupted, so each lookup has a thread of its own. When the resolver hangs, the
    download ends in time and the thread stays until the system gives up, usually some 10 s later; there are never more
    than `size` of them, and further downloads wait for a place within their own time. The threads are daemons: a
    hanging resolver does not keep the process from ending.
    """

    def __init__(self, function: Resolve, size: int) -> None:
        self._function = function
        self._places = threading.BoundedSemaphore(size)

    def addresses(self, host: str, download: _Download) -> list[str]:
        answer = self._begin(host, download)
        try:
            # dict.fromkeys: without repeats, in the resolver's order.
            return list(dict.fromkeys(str(ipaddress.ip_address(text)) for text in answer.result(download.left_s)))
        except TimeoutError as error:
            raise _failed("timeout", host, "was not resolved in time") from error
        except (OSError, ValueError) as error:
            # EAI_AGAIN is the resolver's trouble, everything else the name's.
            passing = error.args[:1] == (socket.EAI_AGAIN,)
            raise _failed("unresolvable_host", host, "cannot be resolved", passing=passing) from error

    def _begin(self, host: str, download: _Download) -> Future[Sequence[str]]:
        if not self._places.acquire(timeout=download.left_s):
            raise _failed("timeout", host, "was not resolved in time")
        answer: Future[Sequence[str]] = Future()
        try:
            threading.Thread(target=self._answer, args=(host, answer), name="match-fetch-resolver", daemon=True).start()
        except RuntimeError as error:  # the system gives no more threads now
            self._places.release()
            raise _failed("unresolvable_host", host, "cannot be resolved now", passing=True) from error
        return answer

    def _answer(self, host: str, answer: Future[Sequence[str]]) -> None:
        try:
            answer.set_result(self._function(host))
        except Exception as error:  # noqa: BLE001 - the waiting thread raises it
            answer.set_exception(error)
        finally:
            self._places.release()


def _accept_all(_head: bytes) -> bool:
    return True


class Fetcher:
    """Fetches URLs for many threads at once, within `max_bytes` and `timeout_s` each; close it when done.

    `timeout_s` is the total time of one fetch, its redirects and retries included. `allow` names what may be fetched
    although it is private, or at another port. `accepts` sees the first bytes of each body, and may refuse it before
    the rest is read. `pool_size` is the number of idle connections kept.
    """

    def __init__(  # noqa: PLR0913 - every limit is the caller's to set, each by name
        self,
        *,
        max_bytes: int,
        timeout_s: float,
        allow: Sequence[AllowedTarget] = (),
        accepts: Callable[[bytes], bool] = _accept_all,
        pool_size: int = 32,
        resolve: Resolve = resolve,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._allow = tuple(allow)
        self._accepts = accepts
        self._resolver = _Resolver(resolve, 2 * pool_size)
        self._idle = _IdleConnections(pool_size)
        self._watchdog = _Watchdog(timeout_s)

    def vet(self, url: str) -> None:
        """Raise FetchError if `url` is one that `fetch` refuses without resolving or connecting."""
        self._vetted(url)

    def fetch(self, url: str) -> bytes:
        """Return the bytes at `url`, or raise FetchError and nothing else."""
        target = self._vetted(url)
        download = self._watchdog.begin()
        try:
            return self._persist(target, download)
        except FetchError as error:
            if download.left_s:
                raise
            # Whatever broke when the socket was shut, this is why.
            reason = f"gave no complete answer within {self._timeout_s:g} s"
            raise _failed("timeout", target.host, reason) from error
        finally:
            self._watchdog.forget(download)

    def close(self) -> None:
        """Close the idle connections and begin no more fetches; running ones go on to their end."""
        self._watchdog.close()
        self._idle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Trust what the system trusts; made when first needed, for it reads hundreds of certificates."""
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _vetted(self, url: str) -> _Target:
        target = _read_url(url)
        if target.is_literal:
            self._judge(target, target.host)
        elif target.port not in DEFAULT_PORTS.values() and not self._may_admit(target):
            raise _forbidden_port(target)
        return target

    def _may_admit(self, target: _Target) -> bool:
        """Say whether some address of the target could be admitted; which one it has is not known yet."""
        return any(
            entry.port in {None, target.port} if entry.network else entry.admits(target.host, "", target.port)
            for entry in self._allow
        )

    def _judge(self, target: _Target, address: str) -> None:
        if any(entry.admits(target.host, address, target.port) for entry in self._allow):
            return
        if not is_public(address):
            raise _failed("private_address", target.host, "is not on the public internet")
        if target.port not in DEFAULT_PORTS.values():
            raise _forbidden_port(target)

    def _persist(self, target: _Target, download: _Download) -> bytes:
        for pause_s in PAUSES_S:
            try:
                return self._follow(target, download)
            except _PassingError:
                if download.left_s <= pause_s:
                    raise
                time.sleep(pause_s)
        return self._follow(target, download)

    def _follow(self, target: _Target, download: _Download) -> bytes:
        for _ in range(1 + REDIRECTS_MAX):
            answer = self._exchange(target, download)
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise _failed("too_many_redirects", target.host, f"is reached after more than {REDIRECTS_MAX} redirects")

    def _exchange(self, target: _Target, download: _Download) -> bytes | _Target:
        """Send one request; return the body, or where it redirects to."""
        connected = self._idle.take(target.origin) or self._connect(target, download)
        stays = False
        try:
            download.guard(connected)
            connected.sendall(target.request())
            with _Response(connected) as response:
                response.begin()
                answer = self._read(response, target)
                # A body without a length looks complete when the watchdog has shut its connection.
                download.check()
                stays = isinstance(answer, bytes) and response.leaves_connection()
        except (OSError, http.client.HTTPException) as error:
            raise _broken(target.host, error) from error
        finally:
            download.let_go()
            if stays:
                self._idle.put(target.origin, connected)
            else:
                connected.close()
        return answer

    def _connect(self, target: _Target, download: _Download) -> socket.socket:
        addresses = self._addresses(target, download)[:ADDRESSES_MAX]
        failure: OSError | None = None
        for nth, address in enumerate(addresses):
            limit_s = min(CONNECT_TIMEOUT_S, download.left_s / (len(addresses) - nth))
            try:
                connected = _dial(address, target.port, limit_s)
            except OSError as error:
                failure = error
                continue
            connected.settimeout(self._timeout_s)
            return connected if target.scheme == "http" else self._secure(connected, target.host, download)
        raise _failed("connect_failed", target.host, "takes no connection", passing=True) from failure

    def _addresses(self, target: _Target, download: _Download) -> list[str]:
        """Return the addresses to connect to; one that is not permitted condemns all."""
        if target.is_literal:
            return [target.host]
        addresses = self._resolver.addresses(target.host, download)
        for address in addresses:
            self._judge(target, address)
        return addresses

    def _secure(self, connected: socket.socket, host: str, download: _Download) -> ssl.SSLSocket:
        try:
            # The handshake is ours to start, so that the watchdog has the socket before it.
            connected = tls = self._tls.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
            download.guard(tls)
            tls.do_handshake()
        except OSError as error:
            download.let_go()
            connected.close()
            raise _no_tls(host, error) from error
        return tls

    def _read(self, response: _Response, target: _Target) -> bytes | _Target:
        location = response.headers["location"]
        if response.status in REDIRECT_STATUSES and location:
            return self._redirected(target, location)
        if response.status != http.client.OK:
            raise _wrong_status(target.host, response.status)
        _refuse_encoding(response, target.host)
        if (response.length or 0) > self._max_bytes:
            raise self._too_large(target.host)
        response.allow_body(self._max_bytes)
        return self._read_body(response, target.host)

    def _redirected(self, target: _Target, location: str) -> _Target:
        try:
            return self._vetted(_joined(target, location))
        except FetchError as error:
            raise _failed(error.code, target.host, f"redirects to what is not fetched: {error}") from None

    def _read_body(self, response: _Response, host: str) -> bytes:
        # A list of pieces would cost 40 times the bytes when a server sends them one by one.
        body = bytearray()
        while len(body) < SNIFF_BYTES and self._read_on(response, body, host):
            pass
        if not self._accepts(bytes(body[:SNIFF_BYTES])):
            raise _failed("not_an_image", host, "sent something that is no picture")
        while self._read_on(response, body, host):
            pass
        if response.length:
            raise _failed("short_body", host, f"sent {response.length} bytes less than it said", passing=True)
        return bytes(body)

    def _read_on(self, response: _Response, body: bytearray, host: str) -> bool:
        piece = response.read1(READ_BYTES)
        body += piece
        if len(body) > self._max_bytes:
            raise self._too_large(host)
        return bool(piece)

    def _too_large(self, host: str) -> FetchError:
        return _failed("too_large", host, f"sends more than {self._max_bytes} bytes")


def _dial(address: str, port: int, limit_s: float) -> socket.socket:
    """Connect to exactly this address."""
    connected = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connected.settimeout(limit_s)
        connected.connect((address, port))
        # It cannot be another; but everything above rests on that.
        if ipaddress.ip_address(connected.getpeername()[0]) != ipaddress.ip_address(address):
            raise ConnectionError
    except OSError:
        connected.close()
        raise
    return connected


def _joined(target: _Target, location: str) -> str:
    # http.client reads headers as latin-1; those who send more than ASCII mean UTF-8.
    location = location.encode("latin-1").decode(errors="replace")
    # urljoin would drop the very characters that we refuse.
    _refuse_odd_text(location)
    try:
        return urljoin(target.url, location)
    except ValueError:
        raise _bad("cannot be read") from None


def _forbidden_port(target: _Target) -> FetchError:
    return _failed("forbidden_port", target.host, f"is not fetched from on port {target.port}")


def _wrong_status(host: str, status: int) -> FetchError:
    passing = status in RETRIED_STATUSES or status >= http.client.INTERNAL_SERVER_ERROR
    return _failed("http_status", host, f"answered with status {status}", passing=passing)


def _refuse_encoding(response: _Response, host: str) -> None:
    encoding = response.headers.get("content-encoding", "").lower()
    # Other words are labels, such as the "aws-chunked" that object stores keep: their bytes are as they are.
    if not COMPRESSIONS.isdisjoint(re.split(r"[,\s]+", encoding)):
        raise _failed("encoded_body", host, "sent a compressed body")
    if response.headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise _failed("bad_response", host, "sent an unknown transfer encoding")


def _no_tls(host: str, error: OSError) -> FetchError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _failed("tls_failed", host, f"has a certificate that is not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return _failed("tls_failed", host, "does not speak TLS as we do")
    return _failed("connect_failed", host, "broke the TLS handshake off", passing=True)


def _broken(host: str, error: OSError | http.client.HTTPException) -> FetchError:
    if isinstance(error, http.client.IncompleteRead):
        return _failed("short_body", host, "ended its answer too early", passing=True)
    if isinstance(error, OSError):
        return _failed("read_failed", host, "broke the connection off", passing=True)
    return _failed("bad_response", host, "sent no HTTP answer that can be read")
