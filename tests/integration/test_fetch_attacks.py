"""Attacks on the fetcher by real servers: it never connects to the internal one, and always ends in time.

The evil server listens on 127.0.0.2, which a setting allows. The internal server listens on the same port of 127.0.0.1.
A fetcher that resolves twice, follows blindly or parses a URL differently connects to it. It counts its connections.
"""

import contextlib
import gc
import gzip
import itertools
import logging
import socket
import socketserver
import ssl
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, quote

import pytest

from common.byte_budget import ByteBudget
from common.errors import FetchError, Overloaded
from common.net.addresses import AllowedTarget
from common.net.connector import TransientFetchError
from common.net.fetch import Fetcher
from common.net.watchdog import MinimumRate
from support.certificates import self_signed
from support.http_servers import serving

INTERNAL = "127.0.0.1"
EVIL = "127.0.0.2"
MAX_BYTES = 100_000
# A fetch that takes longer is treated as endless.
DEADLINE_S = 15.0
PATIENT_S = 10.0
IMPATIENT_S = 0.5

OK = b"HTTP/1.1 200 OK\r\n"
IMAGE = b"\x89PNG\r\n\x1a\n" + b"p" * 2000


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def for_ever(piece: bytes, *, after: bytes = b"", pause_s: float = 0.0) -> Iterator[bytes]:
    """Repeat a piece: one by one with a pause, or without a pause as fast as the client reads."""
    yield after
    while pause_s:
        yield piece
        time.sleep(pause_s)
    while True:
        yield piece * (50_000 // len(piece))


def silence() -> Iterator[bytes]:
    time.sleep(3 * IMPATIENT_S)
    yield b""


LENGTH = b"Content-Length: 90000\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = b"Content-Encoding: gzip\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BOMB = gzip.compress(IMAGE + b"\0" * 10_000_000)
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'

# The evil server's replies by path, and the expected error codes. "or" separates the codes of different Pythons.
WIRE_ATTACKS: dict[str, tuple[str, Callable[[], Iterable[bytes]]]] = {
    "1 GB Content-Length": ("too_large", lambda: [OK, b"Content-Length: 1073741824\r\n\r\n", IMAGE]),
    "Content-Length of 5,000 digits": (
        "too_large",
        lambda: for_ever(IMAGE, after=OK + b"Content-Length: %s\r\n\r\n" % (b"9" * 5000)),
    ),
    "negative Content-Length": ("too_large", lambda: for_ever(IMAGE, after=OK + b"Content-Length: -1\r\n\r\n")),
    "endless body": ("too_large", lambda: for_ever(IMAGE, after=OK + b"\r\n")),
    "endless chunks": ("too_large", lambda: for_ever(chunk(IMAGE), after=OK + CHUNKED)),
    "endless chunk": ("too_large", lambda: for_ever(IMAGE, after=OK + CHUNKED + b"FFFFFFFFFFFF\r\n")),
    "endless chunks of one byte": (
        "too_large",
        lambda: for_ever(chunk(b"p") * 500, after=OK + CHUNKED + chunk(IMAGE)),
    ),
    "endless chunk extension": ("bad_response", lambda: for_ever(b"x" * 999, after=OK + CHUNKED + b"5;")),
    "chunk extensions that outweigh the body": (
        "timeout",
        lambda: for_ever(b"1;" + b"x" * 9999 + b"\r\np\r\n", after=OK + CHUNKED + chunk(IMAGE)),
    ),
    "endless trailers": (
        "timeout or bad_response",
        lambda: for_ever(b"X: y\r\n" * 100, after=OK + CHUNKED + chunk(IMAGE) + b"0\r\n"),
    ),
    "negative chunk": ("too_large", lambda: for_ever(IMAGE, after=OK + CHUNKED + b"-5\r\n")),
    "chunk size that is not a number": ("short_body", lambda: [OK, CHUNKED, chunk(IMAGE), b"zz\r\n", IMAGE]),
    "two Content-Lengths": ("bad_response", lambda: [OK, b"Content-Length: 5\r\n", LENGTH, IMAGE]),
    "both lengths": ("too_large", lambda: for_ever(chunk(IMAGE), after=OK + b"Content-Length: 5\r\n" + CHUNKED)),
    "unknown transfer encoding": (
        "bad_response",
        lambda: [OK, b"Transfer-Encoding: gzip, chunked\r\n\r\n", chunk(IMAGE)],
    ),
    "gzip bomb": ("too_large", lambda: [answer(BOMB, "Content-Encoding: gzip")]),
    "endless gzip of nothing": ("too_large", lambda: for_ever(gzip.compress(b""), after=OK + GZIP)),
    "endless gzip header": ("too_large", lambda: for_ever(b"n", after=OK + GZIP + b"\x1f\x8b\x08\x08" + bytes(6))),
    "deflate": ("encoded_body", lambda: [answer(BOMB, "Content-Encoding: deflate")]),
    "brotli inside gzip": ("encoded_body", lambda: [answer(BOMB, "Content-Encoding: br, GZIP")]),
    "gzip bomb without a label": ("not_an_image", lambda: [answer(BOMB)]),
    "body drip": ("timeout", lambda: for_ever(b"p", after=OK + LENGTH + IMAGE, pause_s=0.01)),
    "body drip before the format is checked": (
        "timeout",
        lambda: for_ever(b"p", after=OK + LENGTH, pause_s=0.01),
    ),
    "body drip without a length": ("timeout", lambda: for_ever(b"p", after=OK + b"\r\n" + IMAGE, pause_s=0.01)),
    "silence inside a body without a length": ("timeout", lambda: itertools.chain([OK, b"\r\n", IMAGE], silence())),
    "chunk drip": ("timeout", lambda: for_ever(chunk(b"p"), after=OK + CHUNKED + chunk(IMAGE[:8]), pause_s=0.01)),
    "header drip": ("timeout", lambda: for_ever(b"X: y\r\n", after=OK, pause_s=0.01)),
    "drip inside a header": ("timeout", lambda: for_ever(b"x", after=OK + b"X: ", pause_s=0.01)),
    "status line drip": ("timeout", lambda: for_ever(b"H", pause_s=0.01)),
    "100-continue drip": ("timeout", lambda: for_ever(CONTINUE, pause_s=0.01)),
    "silence": ("timeout", silence),
    "silence after the head": ("timeout", lambda: itertools.chain([OK, LENGTH], silence())),
    "silence inside the body": ("timeout", lambda: itertools.chain([OK, LENGTH, IMAGE], silence())),
    "header flood": ("bad_response", lambda: for_ever(b"X: y\r\n" * 100, after=OK)),
    "one endless header": ("bad_response", lambda: for_ever(b"x" * 1000, after=OK + b"X: ")),
    "headers of 48 KiB each": ("bad_response", lambda: for_ever(b"X: " + b"y" * 49_000 + b"\r\n", after=OK)),
    "endless status line": ("bad_response", lambda: for_ever(b"x" * 1000, after=b"HTTP/1.1 200 ")),
    "flood of 100-continue": ("timeout or bad_response", lambda: for_ever(CONTINUE * 100)),
    "100-continue with a header flood": ("bad_response", lambda: for_ever(b"X: y\r\n" * 100, after=CONTINUE[:-2])),
    "no HTTP": ("bad_response", lambda: [b"SSH-2.0-OpenSSH_9.9\r\n"]),
    "HTTP/0.9": ("bad_response", lambda: [IMAGE]),
    "HTTP/2": ("bad_response", lambda: [b"HTTP/2 200\r\n\r\n", IMAGE]),
    "a Redis": ("bad_response", lambda: [b"-ERR wrong number of arguments for 'get' command\r\n"]),
    "status that is not a number": ("bad_response", lambda: [b"HTTP/1.1 OK 200\r\n\r\n", IMAGE]),
    "status 99": ("bad_response", lambda: [b"HTTP/1.1 99 Low\r\n\r\n", IMAGE]),
    "early hints for good": ("bad_response", lambda: for_ever(b"HTTP/1.1 103 Early Hints\r\n\r\n")),
    "switching protocols": (
        "http_status",
        lambda: [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", IMAGE],
    ),
    "no content": ("http_status", lambda: [b"HTTP/1.1 204 No Content\r\n\r\n"]),
    "part of the content": ("http_status", lambda: [answer(IMAGE, status="206 Partial Content")]),
    "redirect without Location": ("http_status", lambda: [answer(IMAGE, status="302 Found")]),
    "unauthorized": ("http_forbidden", lambda: [answer(b"", 'WWW-Authenticate: Basic realm="x"', status="401 No")]),
    "proxy authentication": ("http_status", lambda: [answer(b"", "Proxy-Authenticate: Basic", status="407 No")]),
    "404": ("http_not_found", lambda: [answer(IMAGE, status="404 Not Found")]),
    "short body": ("short_body", lambda: [OK, LENGTH, IMAGE]),
    "short chunk": ("short_body", lambda: [OK, CHUNKED, b"9999\r\n", IMAGE]),
    "chunks without end": ("short_body", lambda: [OK, CHUNKED, chunk(IMAGE)]),
    "hangs up": ("read_failed", list),
    "hangs up inside the head": ("http_not_found", lambda: [b"HTTP/1.1 404"]),
    "HTML": ("not_an_image", lambda: [answer(b"<!DOCTYPE html><title>Log in</title>", "Content-Type: image/png")]),
    "SVG": ("not_an_image", lambda: [answer(SVG, "Content-Type: image/svg+xml")]),
    "endless HTML": ("not_an_image", lambda: for_ever(b"<html>" * 1000, after=OK + b"\r\n")),
    "nothing": ("not_an_image", lambda: [answer(b"")]),
}
# Redirects of the evil server: {port} is its port and the internal server's.
REDIRECT_ATTACKS = {
    "to loopback": ("http://127.0.0.1:{port}/", "private_address"),
    "to loopback in hex": ("http://0x7f000001:{port}/", "private_address"),
    "to loopback in decimal": ("http://2130706433:{port}/", "private_address"),
    "to loopback in short": ("http://127.1:{port}/", "private_address"),
    "to loopback in circled digits": ("http://①②⑦.⓪.⓪.①:{port}/", "private_address"),
    "to any address": ("http://0.0.0.0:{port}/", "private_address"),
    "to IPv6 loopback": ("http://[::1]:{port}/", "private_address"),
    "to v4-mapped loopback": ("http://[::ffff:127.0.0.1]:{port}/", "private_address"),
    "to the metadata address": ("http://169.254.169.254/latest/meta-data/", "private_address"),
    "to an internal name": ("http://internal.example:{port}/", "unresolvable_host"),
    "to an internal name by https": ("https://internal.example:{port}/", "unresolvable_host"),
    "to a name with a good and a bad address": ("http://mixed.example:{port}/", "unresolvable_host"),
    "to //host": ("//internal.example:{port}/", "unresolvable_host"),
    "to //address": ("//127.0.0.1:{port}/", "private_address"),
    "to ///host": ("///127.0.0.1:{port}/", "http_not_found"),
    "to an unknown name": ("http://nobody.example/", "unresolvable_host"),
    "to a file": ("file:///etc/passwd", "forbidden_scheme"),
    "to gopher": ("gopher://127.0.0.1:{port}/_GET%20/", "forbidden_scheme"),
    "to data": ("data:image/png;base64,iVBORw0KGgo=", "forbidden_scheme"),
    "to javascript": ("javascript:alert(1)", "forbidden_scheme"),
    "to another port": ("http://evil.example:22/", "forbidden_port"),
    "to a Redis": ("http://127.0.0.1:6379/", "private_address"),
    "to a user": ("http://evil.example:{port}@127.0.0.1:{port}/", "forbidden_userinfo"),
    "to a backslash": ("http:\\\\127.0.0.1:{port}\\", "bad_url"),
    "to a backslash before the host": ("/\\127.0.0.1:{port}/", "bad_url"),
    "to a tab in the scheme": ("ht\ttp://127.0.0.1:{port}/", "bad_url"),
    "to a space behind the scheme": ("http: //127.0.0.1:{port}/", "http_not_found"),
    "to a folded line": ("http://evil.example/\r\n x", "unresolvable_host"),
    "to unclosed brackets": ("http://[::1/", "bad_url"),
    "to a URL that is too long": ("/redirect-long", "bad_url"),
    "to itself": ("#again", "too_many_redirects"),
    "in a circle": ("/redirect?to=/redirect-back", "too_many_redirects"),
}
# Private and reserved addresses to which a name may resolve.
BAD_ANSWERS = ["127.0.0.1", "127.0.0.3", "0.0.0.0", "10.0.0.1", "100.64.0.1", "169.254.169.254", "172.16.0.1"]  # noqa: S104 - refused
BAD_ANSWERS += ["192.0.0.192", "192.88.99.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "::", "::1"]
BAD_ANSWERS += [
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2001:0:7f00:1::",
    "2002:7f00:1::",
]
BAD_ANSWERS += ["fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1"]
# URLs of the internal server, in forms that parsers read differently.
BAD_URLS = {
    "plain": "http://127.0.0.1:{port}/",
    "by https": "https://127.0.0.1:{port}/",
    "dot at the end": "http://127.0.0.1.:{port}/",
    "short": "http://127.1:{port}/",
    "decimal": "http://2130706433:{port}/",
    "hex": "http://0x7f.0.0.1:{port}/",
    "octal": "http://0177.0.0.1:{port}/",
    "full-width dots": "http://127。0。0。1:{port}/",
    "circled digits": "http://①②⑦.⓪.⓪.①:{port}/",
    "any address": "http://0:{port}/",
    "any IPv6 address": "http://[::]:{port}/",
    "v4-mapped": "http://[::ffff:127.0.0.1]:{port}/",
    "v4-compatible": "http://[::127.0.0.1]:{port}/",
    "internal name": "http://internal.example:{port}/",
    "internal name in capitals": "http://INTERNAL.EXAMPLE.:{port}/",
    "userinfo": "http://evil.example:{port}@127.0.0.1:{port}/",
    "two at signs": "http://evil.example:{port}@127.0.0.1:{port}@evil.example:{port}/",
    "fragment": "http://127.0.0.1:{port}#@evil.example:{port}/",
    "query": "http://127.0.0.1:{port}?@evil.example:{port}/",
    "backslash": "http://evil.example:{port}\\@127.0.0.1:{port}/",
    "backslash the other way": "http://127.0.0.1:{port}\\@evil.example:{port}/",
    "space": "http://evil.example:{port} @127.0.0.1:{port}/",
    "CRLF": "http://evil.example:{port}/ HTTP/1.1\r\nHost: internal\r\n\r\n",
    "CRLF in the host": "http://evil.example:{port}\r\n@127.0.0.1:{port}/",
    "gopher": "gopher://127.0.0.1:{port}/_GET%20/",
    "no scheme": "//127.0.0.1:{port}/",
}


class Server(socketserver.ThreadingTCPServer):
    """A server whose replies depend on the path: those of WIRE_ATTACKS by number, those of REPLIES by name."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(address, Handler)
        self.tls = tls
        self.connections = 0
        self.requests: list[bytes] = []
        self.lock = threading.Lock()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002 - socketserver's signature
        self.connections += 1
        return True

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: clients are expected to disconnect."""

    def count(self, path: bytes) -> int:
        with self.lock:
            self.requests.append(path)
            return len(self.requests)


class Handler(socketserver.BaseRequestHandler):
    server: Server
    request: socket.socket

    def handle(self) -> None:
        self.request.settimeout(DEADLINE_S)
        connected = self.request
        if self.server.tls:
            connected = self.server.tls.wrap_socket(self.request, server_side=True)
        with connected, connected.makefile("rb") as lines:
            head = b""
            for line in lines:
                head += line
                if line == b"\r\n":
                    self.reply(connected, head)
                    head = b""

    def reply(self, connected: socket.socket, head: bytes) -> None:
        nth = self.server.count(head)
        path, _, query = head.split(b" ", 2)[1].decode().partition("?")
        if path == "/redirect":
            location = parse_qs(query, keep_blank_values=True)["to"][0].encode()
            connected.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")
        elif path in REPLIES:
            reply = REPLIES[path](nth)
            connected.sendall(reply)
            if not reply:
                raise ConnectionAbortedError
        elif not path[1:].isdecimal():
            connected.sendall(answer(IMAGE, status="404 Not Found"))
        else:
            for piece in WIRE_ATTACKS[list(WIRE_ATTACKS)[int(path[1:])]][1]():
                connected.sendall(piece)
            raise ConnectionAbortedError


def slow(_nth: int) -> bytes:
    time.sleep(0.1)
    return answer(IMAGE)


def redirect(location: str, _nth: int) -> bytes:
    return answer(b"", f"Location: {location}", status="302 Found")


def unready(status: str) -> Callable[[int], bytes]:
    return lambda nth: answer(b"", status=status) if nth <= 2 else answer(IMAGE)


# Replies after which the connection stays open; `nth` counts the server's requests.
REPLIES: dict[str, Callable[[int], bytes]] = {
    "/image": lambda _: answer(IMAGE),
    "/chunked": lambda _: OK + CHUNKED + chunk(IMAGE[:1000]) + chunk(IMAGE[1000:]) + b"0\r\n\r\n",
    "/odd-header": lambda _: answer(IMAGE, "no header: at all", ": either"),
    "/cookie": lambda _: answer(IMAGE, "Set-Cookie: id=1; Path=/"),
    "/label": lambda _: answer(IMAGE, "Content-Encoding: aws-chunked"),
    "/largest": lambda _: answer(IMAGE.ljust(MAX_BYTES)),
    "/one-too-many": lambda _: OK + CHUNKED + chunk(IMAGE.ljust(MAX_BYTES + 1)) + b"0\r\n\r\n",
    "/slow": slow,
    "/two-answers": lambda _: answer(IMAGE) + answer(b"\x89PNG poison"),
    # As much as the client's buffer holds, so that it has not received the second response yet.
    "/two-answers-apart": lambda _: answer(IMAGE).ljust(8192) + answer(b"\x89PNG poison"),
    "/two-answers-chunked": lambda _: OK + CHUNKED + chunk(IMAGE) + b"0\r\n\r\n" + answer(b"\x89PNG poison"),
    "/unready-408": unready("408 Request Timeout"),
    "/unready-425": unready("425 Too Early"),
    "/unready-429": unready("429 Too Many Requests"),
    "/unready-500": unready("500 Internal Server Error"),
    "/unready-503": unready("503 Service Unavailable"),
    "/later": lambda _: answer(b"", "Retry-After: 7", status="429 Too Many Requests"),
    "/closing-once": lambda nth: answer(IMAGE) if nth > 2 else b"",
    "/closing": lambda _: b"",
    "/redirect-back": lambda _: answer(b"", "Location: /redirect?to=/redirect-back", status="307 Temporary Redirect"),
    "/redirect-long": lambda _: answer(b"", f"Location: /{'a' * 9000}", status="301 Moved Permanently"),
    **{f"/hop{n}": partial(redirect, f"hop{n - 1}") for n in range(6, 12)},
    "/hop5": lambda _: answer(b"", "Location: hop4", status="301 Moved Permanently"),
    "/hop4": lambda _: answer(b"", "Location: /hop3", status="302 Found"),
    "/hop3": lambda _: answer(b"", "Location: /hop2?x", status="303 See Other"),
    "/hop2": lambda _: answer(b"", "Location: ./hop1", status="307 Temporary Redirect"),
    "/hop1": lambda _: answer(b"", "Location: image", status="308 Permanent Redirect"),
    "/b%C3%BCcher": lambda _: answer(IMAGE),
}


class Names:
    """A resolver: each name has a list of answers, one for each question; the last one repeats."""

    def __init__(self, table: dict[str, list[list[str]]]) -> None:
        self.table = table
        self.asked: list[str] = []

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.table[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """The internal and the evil server, on the same port of two addresses."""
    with serving(Server((INTERNAL, 0))) as internal, serving(Server((EVIL, internal.port))) as evil:
        yield internal, evil


@pytest.fixture
def evil(servers: tuple[Server, Server]) -> Server:
    servers[1].connections = 0
    servers[1].requests.clear()
    return servers[1]


@pytest.fixture
def internal(servers: tuple[Server, Server]) -> Iterator[Server]:
    """The server that must not be reached; the fixture checks that at the end."""
    yield servers[0]
    assert servers[0].connections == 0


@pytest.fixture
def names() -> Names:
    return Names({"evil.example": [[EVIL]], "internal.example": [[INTERNAL]], "mixed.example": [[EVIL, INTERNAL]]})


def is_image(head: bytes) -> bool:
    return head.startswith(b"\x89PNG")


Make = Callable[..., Fetcher]


@pytest.fixture
def make(evil: Server, internal: Server, names: Names) -> Iterator[Make]:  # noqa: ARG001 - every test watches the internal server
    """Make fetchers that may connect to the evil server and to no other private address."""
    with contextlib.ExitStack() as stack:

        def make(timeout_s: float = PATIENT_S, **options: object) -> Fetcher:
            allow = [AllowedTarget.parse(f"{EVIL}:{evil.port}")]
            settings = {"max_bytes": MAX_BYTES, "allow": allow, "accepts": is_image, "resolve": names, **options}
            return stack.enter_context(Fetcher(timeout_s=timeout_s, **settings))  # type: ignore[arg-type]  # a test's short cut

        yield make


@pytest.fixture
def fetcher(make: Make) -> Fetcher:
    return make()


@pytest.fixture
def site(evil: Server) -> str:
    return f"http://evil.example:{evil.port}"


def failure(fetcher: Fetcher, url: str) -> FetchError:
    """Return the error of a fetch that must fail, in time and without the URL's secret in its text."""
    began = time.monotonic()
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(url)
    assert time.monotonic() - began < DEADLINE_S
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
    return caught.value


@pytest.mark.parametrize("form", BAD_URLS.values(), ids=BAD_URLS.keys())
def test_no_url_leads_to_the_internal_server(fetcher: Fetcher, evil: Server, form: str) -> None:
    error = failure(fetcher, form.format(port=evil.port))

    assert error.code in {"private_address", "unresolvable_host", "forbidden_userinfo", "forbidden_scheme", "bad_url"}
    assert evil.requests == []


@pytest.mark.parametrize("address", BAD_ANSWERS)
@pytest.mark.parametrize("others", [[], [EVIL]], ids=["only", "after a good one"])
def test_name_with_a_private_address_is_refused(make: Make, evil: Server, address: str, others: list[str]) -> None:
    fetcher = make(resolve=Names({"rebound.example": [[*others, address]]}))

    error = failure(fetcher, f"http://rebound.example:{evil.port}/?SECRET")
    absent = failure(fetcher, f"http://nobody.example:{evil.port}/")

    assert (error.code, str(error)) == ("unresolvable_host", str(absent).replace("nobody.example", "rebound.example"))
    assert evil.connections == 0


def test_localhost_by_the_system_resolver_is_refused(evil: Server) -> None:
    with Fetcher(max_bytes=1, timeout_s=PATIENT_S, allow=[AllowedTarget.parse(f"{EVIL}:{evil.port}")]) as fetcher:
        codes = {
            failure(fetcher, f"http://{name}:{evil.port}/").code for name in ("localhost", "localhost.", "LocalHost")
        }

    assert codes == {"unresolvable_host"}


@pytest.mark.parametrize("nonsense", ["", "evil.example", "1.2.3", "/run/x.sock"])
def test_nonsense_from_a_resolver_is_refused(make: Make, evil: Server, nonsense: str) -> None:
    fetcher = make(resolve=Names({"odd.example": [[nonsense]]}))

    assert failure(fetcher, f"http://odd.example:{evil.port}/").code == "unresolvable_host"


def test_name_is_resolved_once_per_connection(fetcher: Fetcher, names: Names, site: str) -> None:
    names.table["evil.example"] = [[EVIL], [INTERNAL]]

    assert fetcher.fetch(f"{site}/image") == IMAGE
    assert names.asked == ["evil.example"]


def test_name_is_checked_at_every_resolution(fetcher: Fetcher, names: Names, site: str) -> None:
    names.table["evil.example"] = [[EVIL], [INTERNAL]]
    failure(fetcher, f"{site}/{attack('404')}")

    assert failure(fetcher, f"{site}/image").code == "unresolvable_host"


def test_redirect_checks_the_name_again(fetcher: Fetcher, names: Names, site: str) -> None:
    names.table["evil.example"] = [[EVIL], [INTERNAL]]

    assert failure(fetcher, f"{site}/hop1").code == "unresolvable_host"


def attack(name: str) -> int:
    return list(WIRE_ATTACKS).index(name)


@pytest.mark.parametrize(("location", "expected"), REDIRECT_ATTACKS.values(), ids=REDIRECT_ATTACKS.keys())
def test_no_redirect_leads_to_the_internal_server(
    fetcher: Fetcher, evil: Server, site: str, location: str, expected: str
) -> None:
    to = quote(location.format(port=evil.port))

    error = failure(fetcher, f"{site}/redirect?to={to}")

    assert error.code == expected


def test_refused_redirect_names_source_and_target(fetcher: Fetcher, evil: Server, site: str) -> None:
    error = failure(fetcher, f"{site}/redirect?to=http://127.0.0.1:{evil.port}/SECRET%3FSECRET")

    expected = "evil.example redirects to a forbidden URL: 127.0.0.1 is not on the public internet"
    assert str(error) == expected


def test_eleven_hops_are_one_too_many(fetcher: Fetcher, site: str) -> None:
    assert failure(fetcher, f"{site}/hop11").code == "too_many_redirects"
    assert fetcher.fetch(f"{site}/hop10") == IMAGE


def test_a_redirect_in_utf8_is_followed(fetcher: Fetcher, site: str) -> None:
    assert fetcher.fetch(f"{site}/redirect?to=/b%C3%BCcher") == IMAGE


@pytest.mark.parametrize("name", WIRE_ATTACKS)
def test_fetch_ends_in_time_under_attack(make: Make, site: str, name: str) -> None:
    expected = WIRE_ATTACKS[name][0]
    fetcher = make(IMPATIENT_S if "timeout" in expected else PATIENT_S)

    error = failure(fetcher, f"{site}/{attack(name)}?signature=SECRET#SECRET")

    assert error.code in expected.split(" or ")
    assert "evil.example" in str(error)


@pytest.mark.parametrize("form", BAD_URLS.values(), ids=BAD_URLS.keys())
def test_nothing_is_posted_to_the_internal_server(fetcher: Fetcher, evil: Server, form: str) -> None:
    with pytest.raises(FetchError):
        fetcher.post(form.format(port=evil.port), b"{}", {})


def test_a_post_is_sent_once_and_follows_nothing(fetcher: Fetcher, evil: Server, site: str) -> None:
    status = fetcher.post(f"{site}/redirect?to=http://127.0.0.1:{evil.port}/", b"{}", {"X-Name": "value"})

    [head] = evil.requests
    assert status == 302
    assert head.startswith(b"POST /redirect?to=")
    assert {b"content-length: 2", b"x-name: value"} <= set(head.lower().split(b"\r\n"))


@pytest.mark.parametrize("name", WIRE_ATTACKS)
def test_post_ends_in_time_under_attack(make: Make, evil: Server, site: str, name: str) -> None:
    began = time.monotonic()

    with contextlib.suppress(FetchError):
        make(IMPATIENT_S).post(f"{site}/{attack(name)}", b"{}", {})

    assert time.monotonic() - began < DEADLINE_S
    # On a busy machine the time may end before the request is sent.
    assert len(evil.requests) <= 1


def test_a_status_is_named(fetcher: Fetcher, site: str) -> None:
    assert str(failure(fetcher, f"{site}/{attack('404')}?SECRET")) == "evil.example answered with status 404"


@pytest.mark.parametrize("path", ["/image", "/chunked", "/label"])
def test_image_is_fetched(fetcher: Fetcher, site: str, path: str) -> None:
    assert fetcher.fetch(site + path) == IMAGE


def test_body_of_exactly_the_limit_is_fetched(fetcher: Fetcher, site: str) -> None:
    assert len(fetcher.fetch(f"{site}/largest")) == MAX_BYTES
    assert failure(fetcher, f"{site}/one-too-many").code == "too_large"


@pytest.mark.parametrize(("path", "reserved"), [("/image", len(IMAGE)), ("/chunked", MAX_BYTES)])
def test_memory_is_reserved_before_a_body_is_read(fetcher: Fetcher, site: str, path: str, reserved: int) -> None:
    sizes: list[int] = []

    def reserve(size: int, *, within_s: float) -> None:
        assert within_s <= PATIENT_S / 2
        sizes.append(size)

    fetcher.fetch(site + path, reserve=reserve)

    assert sizes == [reserved, len(IMAGE)]


def test_a_body_without_memory_is_not_read(fetcher: Fetcher, site: str) -> None:
    budget = ByteBudget(MAX_BYTES, wait_s=0)

    with budget.reservation() as other, budget.reservation() as reservation:
        other.resize(MAX_BYTES)
        with pytest.raises(Overloaded):
            fetcher.fetch(f"{site}/image", reserve=reservation.resize)

    assert fetcher.fetch(f"{site}/image") == IMAGE


@pytest.mark.parametrize("name", ["body drip", "silence inside the body"])
def test_body_below_the_minimum_rate_is_ended(fetcher: Fetcher, site: str, name: str) -> None:
    with pytest.raises(FetchError, match="too slowly") as caught:
        fetcher.fetch(f"{site}/{attack(name)}", minimum_rate=MinimumRate(bytes_per_s=1e6, grace_s=0.2))

    assert caught.value.code == "timeout"


def test_body_above_the_minimum_rate_is_fetched(fetcher: Fetcher, site: str) -> None:
    assert (
        len(fetcher.fetch(f"{site}/largest", minimum_rate=MinimumRate(bytes_per_s=1, grace_s=PATIENT_S))) == MAX_BYTES
    )


def test_the_size_of_a_large_body_is_named(fetcher: Fetcher, site: str) -> None:
    error = failure(fetcher, f"{site}/{attack('1 GB Content-Length')}")

    assert "sends 1,073,741,824 bytes; the limit is 100,000 (MATCH_MAX_IMAGE_BYTES)" in str(error)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_a_temporary_status_is_transient_and_not_retried(
    fetcher: Fetcher, evil: Server, site: str, status: int
) -> None:
    error = failure(fetcher, f"{site}/unready-{status}")

    assert isinstance(error, TransientFetchError)
    assert (error.is_rejection, error.retry_after_s) == (status in {429, 503}, None)
    assert len(evil.requests) == 1


def test_a_transient_error_has_the_seconds_of_retry_after(fetcher: Fetcher, site: str) -> None:
    error = failure(fetcher, f"{site}/later")

    assert isinstance(error, TransientFetchError)
    assert error.retry_after_s == 7


def test_connection_closed_while_idle_is_replaced(fetcher: Fetcher, evil: Server, site: str) -> None:
    fetcher.fetch(f"{site}/image")

    assert fetcher.fetch(f"{site}/closing-once") == IMAGE
    assert (len(evil.requests), evil.connections) == (3, 2)


def test_new_connection_that_closes_is_not_replaced(fetcher: Fetcher, evil: Server, site: str) -> None:
    error = failure(fetcher, f"{site}/closing")

    assert (error.code, type(error)) == ("read_failed", TransientFetchError)
    assert len(evil.requests) == 1


@pytest.mark.parametrize("name", ["404", "HTML", "gzip bomb", "1 GB Content-Length", "no HTTP"])
def test_permanent_failure_is_not_transient(fetcher: Fetcher, evil: Server, site: str, name: str) -> None:
    error = failure(fetcher, f"{site}/{attack(name)}")

    assert type(error) is FetchError
    assert len(evil.requests) == 1


def test_refused_connection_names_the_host(names: Names) -> None:
    with socket.socket() as unheard:
        unheard.bind((EVIL, 0))
        port = unheard.getsockname()[1]
        with Fetcher(max_bytes=1, timeout_s=PATIENT_S, allow=[AllowedTarget.parse(EVIL)], resolve=names) as patient:
            error = failure(patient, f"http://evil.example:{port}/?SECRET")

    assert (error.code, str(error)) == ("connect_failed", "evil.example cannot be connected to")


def test_dead_address_is_skipped(evil: Server) -> None:
    both = [AllowedTarget.parse("127.0.0.0/8")]
    names = Names({"two.example": [["127.0.0.9", EVIL]]})
    with Fetcher(max_bytes=MAX_BYTES, timeout_s=PATIENT_S, allow=both, resolve=names) as fetcher:
        assert fetcher.fetch(f"http://two.example:{evil.port}/image") == IMAGE


def test_hanging_resolver_is_bounded_by_the_timeout(make: Make, site: str) -> None:
    released = threading.Event()

    def hang(_host: str) -> list[str]:
        released.wait(DEADLINE_S)
        return [EVIL]

    fetcher = make(0.2, resolve=hang, pool_size=1)
    errors = [failure(fetcher, f"{site}/image") for _ in range(4)]
    waiting = sum(thread.name.startswith("match-fetch-resolver") for thread in threading.enumerate())
    released.set()

    assert [(error.code, type(error)) for error in errors] == [("timeout", TransientFetchError)] * 4
    assert waiting == 2  # twice the pool's size, however many fetches there were


@pytest.mark.parametrize(
    ("reason", "error_type"),
    [(socket.EAI_AGAIN, TransientFetchError), (socket.EAI_NONAME, FetchError)],
    ids=["SERVFAIL", "NXDOMAIN"],
)
def test_only_a_failure_of_the_resolver_is_transient(
    make: Make, site: str, reason: int, error_type: type[FetchError]
) -> None:
    def fail(_host: str) -> list[str]:
        raise socket.gaierror(reason, "the resolver's text")

    error = failure(make(resolve=fail), f"{site}/image")

    assert (error.code, type(error)) == ("unresolvable_host", error_type)


def test_connection_is_reused(fetcher: Fetcher, evil: Server, site: str) -> None:
    for path in ["/image", "/chunked", "/image", "/label"]:
        fetcher.fetch(site + path)

    assert len(evil.requests) == 4
    assert evil.connections == 1


def test_response_between_two_requests_is_discarded(make: Make) -> None:
    with socket.create_server((EVIL, 0)) as listener:
        listener.settimeout(DEADLINE_S)
        url = f"http://evil.example:{listener.getsockname()[1]}/"
        fetcher = make(allow=[AllowedTarget.parse(EVIL)])
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(fetcher.fetch, url)
            poisoned, _ = listener.accept()
            with poisoned:
                poisoned.sendall(answer(IMAGE))
                first.result(DEADLINE_S)
                poisoned.sendall(answer(b"\x89PNG poison"))
                second = pool.submit(fetcher.fetch, url)
                clean, _ = listener.accept()
                with clean:
                    clean.sendall(answer(IMAGE))
                    assert second.result(DEADLINE_S) == IMAGE


def test_a_connection_that_the_server_closed_is_replaced(make: Make) -> None:
    with socket.create_server((EVIL, 0)) as listener:
        port = listener.getsockname()[1]
        fetcher = make(allow=[AllowedTarget.parse(f"{EVIL}:{port}")])

        def serve() -> None:
            for _ in range(2):
                connected, _address = listener.accept()
                with connected:
                    connected.recv(4096)
                    connected.sendall(answer(IMAGE))

        with ThreadPoolExecutor(1) as pool:
            served = pool.submit(serve)
            bodies = [fetcher.fetch(f"http://evil.example:{port}/") for _ in range(2)]
            served.result(DEADLINE_S)

    assert bodies == [IMAGE, IMAGE]


def test_no_cookie_is_sent_back(fetcher: Fetcher, evil: Server, site: str) -> None:
    fetcher.fetch(f"{site}/cookie")
    fetcher.fetch(f"{site}/image")

    assert all(b"cookie" not in request.partition(b"\r\n")[2].lower() for request in evil.requests)


def test_a_proxy_in_the_environment_is_not_used(
    make: Make, internal: Server, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{INTERNAL}:{internal.port}")

    assert make().fetch(f"{site}/image") == IMAGE


def test_credentials_in_the_environment_are_not_sent(
    make: Make, evil: Server, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password SECRET\n")
    monkeypatch.setenv("NETRC", str(netrc))

    make().fetch(f"{site}/image")

    assert b"authorization" not in evil.requests[0].lower()


def test_many_threads_fetch_at_once(fetcher: Fetcher, evil: Server, site: str) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(32) as pool:
        bodies = list(pool.map(fetcher.fetch, [f"{site}/slow"] * 128))

    assert bodies == [IMAGE] * 128
    assert evil.connections <= 32
    assert time.monotonic() - began < DEADLINE_S  # one after another they take 13 s at the least


def test_many_slow_attacks_at_once_all_end_in_time(make: Make, site: str) -> None:
    fetcher = make(IMPATIENT_S)
    urls = [f"{site}/{attack(name)}" for name in ("body drip", "header drip", "silence", "silence inside the body")] * 8
    with ThreadPoolExecutor(32) as pool:
        codes = {error.code for error in pool.map(failure, [fetcher] * 32, urls)}

    assert codes == {"timeout"}


def idle(fetcher: Fetcher, server: Server) -> list[socket.socket]:
    pool = fetcher._pools.connection_from_host("evil.example", server.port, "http").pool
    assert pool is not None
    return [connection.sock for connection in pool.queue if connection is not None and connection.sock is not None]


def test_idle_connections_are_bounded(make: Make, evil: Server, site: str) -> None:
    fetcher = make(pool_size=2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fetcher.fetch, [f"{site}/slow"] * 8))

    assert 1 <= len(idle(fetcher, evil)) <= 2
    assert fetcher.fetch(f"{site}/image") == IMAGE


def test_a_closed_fetcher_leaves_nothing_behind(make: Make, evil: Server, site: str) -> None:
    fetcher = make()
    fetcher.fetch(f"{site}/image")
    (connected,) = idle(fetcher, evil)
    watchdog = fetcher._watchdog._thread
    fetcher.close()
    assert watchdog is not None
    watchdog.join(DEADLINE_S)

    assert not watchdog.is_alive()
    assert connected.fileno() == -1


@pytest.mark.parametrize(
    "name",
    ["404", "endless HTML", "endless body", "no HTTP", "short body", "body drip", "header drip", "silence", "hangs up"],
)
def test_no_attack_leaves_a_socket_open(make: Make, site: str, name: str) -> None:
    fetcher = make(IMPATIENT_S)
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        failure(fetcher, f"{site}/{attack(name)}")
        open_sockets = [each for each in gc.get_objects() if is_open_to(each, site)]
        gc.collect()

    assert open_sockets == []
    assert [str(warning.message) for warning in caught] == []


def is_open_to(candidate: object, site: str) -> bool:
    """Return whether this is a client's socket, connected to the site."""
    if type(candidate) is not socket.socket:
        return False
    with contextlib.suppress(OSError):
        return bool(candidate.getpeername() == (EVIL, int(site.rpartition(":")[2])))
    return False


def test_no_url_is_logged(fetcher: Fetcher, site: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fetcher.fetch(f"{site}/odd-header?SECRET")
    failure(fetcher, f"{site}/{attack('404')}?SECRET")

    assert "SECRET" not in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of evil.example with its key; `.crt` has only the certificate."""
    return self_signed(tmp_path_factory.mktemp("tls"), "evil.example", "DNS:evil.example")


@pytest.fixture
def trust(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make OpenSSL trust the certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))


@pytest.fixture
def secure(certificate: Path) -> Iterator[Server]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with serving(Server((EVIL, 0), context)) as server:
        yield server


def test_self_signed_certificate_is_refused_before_a_request(make: Make, secure: Server) -> None:
    fetcher = make(allow=[AllowedTarget.parse(EVIL)])

    error = failure(fetcher, f"https://evil.example:{secure.port}/image?SECRET")

    assert error.code == "tls_failed"
    assert "evil.example" in str(error)
    assert (secure.connections, secure.requests) == (1, [])


@pytest.mark.usefixtures("trust")
def test_trusted_certificate_is_accepted_and_its_connection_reused(make: Make, secure: Server) -> None:
    fetcher = make(allow=[AllowedTarget.parse(EVIL)])

    bodies = [fetcher.fetch(f"https://evil.example:{secure.port}{path}") for path in ("/image", "/chunked", "/image")]

    assert bodies == [IMAGE] * 3
    assert secure.connections == 1


@pytest.mark.usefixtures("trust")
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("path", ["/two-answers", "/two-answers-chunked", "/two-answers-apart"])
def test_unrequested_response_is_discarded(make: Make, evil: Server, secure: Server, path: str, scheme: str) -> None:
    fetcher = make(allow=[AllowedTarget.parse(EVIL)])
    port = {"http": evil, "https": secure}[scheme].port

    bodies = [fetcher.fetch(f"{scheme}://evil.example:{port}{each}") for each in (path, "/image")]

    assert bodies == [IMAGE, IMAGE]


@pytest.mark.usefixtures("trust")
@pytest.mark.parametrize("host", ["other.example", EVIL])
def test_certificate_of_another_host_is_refused(make: Make, secure: Server, host: str) -> None:
    fetcher = make(allow=[AllowedTarget.parse(EVIL)], resolve=Names({"other.example": [[EVIL]]}))

    assert failure(fetcher, f"https://{host}:{secure.port}/image").code == "tls_failed"
    assert secure.requests == []


@pytest.mark.usefixtures("trust")
@pytest.mark.parametrize("name", ["body drip", "silence inside the body", "header drip"])
def test_slow_tls_response_is_ended(make: Make, secure: Server, name: str) -> None:
    fetcher = make(IMPATIENT_S, allow=[AllowedTarget.parse(EVIL)])

    assert failure(fetcher, f"https://evil.example:{secure.port}/{attack(name)}").code == "timeout"


@pytest.mark.usefixtures("trust")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_slow_response_on_a_reused_connection_is_ended(make: Make, evil: Server, secure: Server, scheme: str) -> None:
    server = {"http": evil, "https": secure}[scheme]
    fetcher = make(IMPATIENT_S, allow=[AllowedTarget.parse(EVIL)])
    fetcher.fetch(f"{scheme}://evil.example:{server.port}/image")

    error = failure(fetcher, f"{scheme}://evil.example:{server.port}/{attack('body drip')}")

    assert error.code == "timeout"
    assert server.connections == 1


@pytest.mark.parametrize(
    ("sent", "expected"), [(b"", "timeout"), (b"\x16\x03\x03\x40\x00", "timeout"), (b"HTTP/1.1 400 \r\n", "tls_failed")]
)
def test_endless_tls_handshake_is_ended(make: Make, sent: bytes, expected: str) -> None:
    with socket.create_server((EVIL, 0)) as listener:
        port = listener.getsockname()[1]
        timeout_s = IMPATIENT_S if expected == "timeout" else PATIENT_S
        fetcher = make(timeout_s, allow=[AllowedTarget.parse(f"{EVIL}:{port}")])
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(failure, fetcher, f"https://evil.example:{port}/")
            connected, _ = listener.accept()
            with connected:
                connected.sendall(sent)
                assert error.result(DEADLINE_S).code == expected
