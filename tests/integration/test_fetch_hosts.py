"""Habits of real image hosts: the fetcher copes with what browsers cope with."""

import gzip
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import FetchError
from common.net.addresses import AllowedTarget, read_url
from common.net.connector import Connector
from common.net.fetch import Fetcher
from common.net.host_headers import read_headers_file
from common.net.watchdog import Download
from support.http_servers import serving

HOST = "127.0.0.2"
MAX_BYTES = 100_000
IMAGE = b"\x89PNG\r\n\x1a\n" + b"p" * 2000
COOKIE = "Set-Cookie: seen=1; Path=/"


def answer(body: bytes = IMAGE, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, *headers: str) -> bytes:
    return answer(b"", f"Location: {location}", *headers, status="302 Found")


def interim(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers]).encode() + b"\r\n\r\n"


GZIP = gzip.compress(IMAGE)
REPLIES = {
    "/image": answer(),
    "/early-hints": interim("103 Early Hints", "Link: </a.css>; rel=preload") + answer(),
    "/processing": interim("102 Processing") * 5 + interim("100 Continue") + answer(),
    "/changed-by-a-proxy": answer(status="203 Non-Authoritative Information"),
    "/many-headers": answer(IMAGE, *(f"X-Header-{number}: value" for number in range(150))),
    "/long-header": answer(IMAGE, f"Content-Security-Policy: {'x' * 65_536}"),
    "/gzip": answer(GZIP, "Content-Encoding: gzip"),
    "/gzip-members": answer(gzip.compress(IMAGE[:500]) + gzip.compress(IMAGE[500:]), "Content-Encoding: x-gzip"),
    "/gzip-largest": answer(gzip.compress(IMAGE.ljust(MAX_BYTES)), "Content-Encoding: gzip"),
    "/gzip-larger": answer(gzip.compress(IMAGE.ljust(MAX_BYTES + 1)), "Content-Encoding: gzip"),
    "/gzip-cut": answer(GZIP[:-10], "Content-Encoding: gzip"),
    "/gzip-damaged": answer(GZIP[:15] + b"????" + GZIP[19:], "Content-Encoding: gzip"),
    "/gzip-not": answer(IMAGE, "Content-Encoding: gzip"),
    "/to-a-space": redirect("/a file.png"),
    "/a%20file.png": answer(),
    "/wall": redirect("/behind-the-wall", COOKIE),
    "/wall-elsewhere": redirect("http://other.example:{port}/behind-the-wall", COOKIE),
    "/wall-with-odd-cookie": redirect("/image", "Set-Cookie: seen=\x01\xff"),
    "/elsewhere": redirect("http://other.example:{port}/image"),
    "/noindex": answer(IMAGE, "X-Robots-Tag: max-snippet:10, NoIndex"),
    "/noai-for-one": answer(IMAGE, "X-Robots-Tag: somebot: noai"),
    "/indexed": answer(IMAGE, "X-Robots-Tag: all"),
}
STATUSES = {401: "http_forbidden", 403: "http_forbidden", 404: "http_not_found", 410: "http_gone", 418: "http_status"}
STATUSES |= {429: "http_rate_limited", 500: "http_server_error", 503: "http_server_error"}


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__((HOST, 0), Handler)
        self.heads: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        head = ""
        for line in self.rfile:
            head += line.decode("latin-1")
            if line == b"\r\n":
                self.server.heads.append(head)
                self.wfile.write(self.reply(head))
                head = ""

    def reply(self, head: str) -> bytes:
        path = head.split(" ")[1]
        if path[1:].isdecimal():
            return answer(b"", status=f"{path[1:]} Status")
        if path == "/behind-the-wall":
            return answer() if "\r\ncookie: seen=1\r\n" in head.lower() else answer(b"", status="403 Forbidden")
        return REPLIES[path].replace(b"{port}", str(self.server.port).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


@pytest.fixture
def make(server: Server) -> Iterator[Callable[..., Fetcher]]:
    fetchers: list[Fetcher] = []

    def make(**options: object) -> Fetcher:
        settings: dict[str, object] = {
            "max_bytes": MAX_BYTES,
            "timeout_s": 60,
            "allow": [AllowedTarget.parse(f"{HOST}:{server.port}")],
            "accepts": lambda head: head.startswith(b"\x89PNG"),
            "resolve": lambda _host: [HOST],
        }
        fetchers.append(Fetcher(**settings | options))  # type: ignore[arg-type]  # a test's short cut
        return fetchers[-1]

    yield make
    for fetcher in fetchers:
        fetcher.close()


@pytest.fixture
def site(server: Server) -> str:
    return f"http://images.example:{server.port}"


def code(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(url)
    return caught.value.code


@pytest.mark.parametrize(
    "path",
    [
        "/early-hints",
        "/processing",
        "/changed-by-a-proxy",
        "/many-headers",
        "/long-header",
        "/gzip",
        "/gzip-members",
        "/to-a-space",
        "/a file.png",
        "/wall",
        "/wall-with-odd-cookie",
        "/noindex",
    ],
)
def test_habit_of_a_host_is_no_obstacle(make: Callable[..., Fetcher], site: str, path: str) -> None:
    assert make().fetch(site + path) == IMAGE


def test_compressed_body_may_fill_the_limit(make: Callable[..., Fetcher], site: str) -> None:
    assert len(make().fetch(f"{site}/gzip-largest")) == MAX_BYTES
    assert code(make(), f"{site}/gzip-larger") == "too_large"


@pytest.mark.parametrize(
    ("path", "expected"), [("cut", "short_body"), ("damaged", "encoded_body"), ("not", "encoded_body")]
)
def test_unreadable_compressed_body_is_refused(
    make: Callable[..., Fetcher], site: str, path: str, expected: str
) -> None:
    assert code(make(), f"{site}/gzip-{path}") == expected


@pytest.mark.parametrize(("status", "expected"), STATUSES.items())
def test_each_kind_of_status_has_a_code(make: Callable[..., Fetcher], site: str, status: int, expected: str) -> None:
    assert code(make(), f"{site}/{status}") == expected


def test_cookies_stay_with_their_host(make: Callable[..., Fetcher], site: str) -> None:
    assert code(make(), f"{site}/wall-elsewhere") == "http_forbidden"


def test_cookies_end_with_their_fetch(make: Callable[..., Fetcher], site: str) -> None:
    fetcher = make()
    fetcher.fetch(f"{site}/wall")

    assert code(fetcher, f"{site}/behind-the-wall") == "http_forbidden"


@pytest.mark.parametrize("path", ["/noindex", "/noai-for-one"])
def test_reserved_image_is_refused_if_so_set(make: Callable[..., Fetcher], site: str, path: str) -> None:
    assert code(make(honours_robots_tag=True), site + path) == "robots_tag"
    assert make(honours_robots_tag=True).fetch(f"{site}/indexed") == IMAGE


def test_download_names_itself(make: Callable[..., Fetcher], server: Server, site: str) -> None:
    make().fetch(f"{site}/image")
    make(user_agent="Example (+https://example.org)").fetch(f"{site}/image")

    named = [line for head in server.heads for line in head.splitlines() if line.lower().startswith("user-agent")]
    assert named == [
        "User-Agent: Match/0.1.0 (self-hosted reverse image search)",
        "User-Agent: Example (+https://example.org)",
    ]


def test_headers_of_a_host_replace_those_of_downloads(
    make: Callable[..., Fetcher], server: Server, site: str, tmp_path: Path
) -> None:
    file = tmp_path / "headers.toml"
    file.write_text('["images.example"]\nuser-agent = "Mine"\naccept = "image/webp"\n')

    make(headers=read_headers_file(str(file))).fetch(f"{site}/image")

    [head] = server.heads
    lines = [line for line in head.splitlines() if line.lower().startswith(("user-agent:", "accept:"))]
    assert sorted(lines) == ["Accept: image/webp", "User-Agent: Mine"]


def test_headers_of_a_host_stay_with_it(
    make: Callable[..., Fetcher], server: Server, site: str, tmp_path: Path
) -> None:
    file = tmp_path / "headers.toml"
    file.write_text('["http://images.example"]\nAuthorization = "SECRET"\n["*.other.example"]\nReferer = "SECRET"\n')

    headers = read_headers_file(str(file))
    make(headers=headers).fetch(f"{site}/elsewhere")

    assert ["SECRET" in head for head in server.heads] == [True, False]
    assert headers("https", "cdn.other.example") == {"Referer": "SECRET"}
    assert headers("https", "other.example") == {}
    assert headers("https", "images.example") == {}
    assert "SECRET" not in repr(headers)


def test_secret_headers_are_not_sent_over_plain_http(
    make: Callable[..., Fetcher], server: Server, site: str, tmp_path: Path
) -> None:
    file = tmp_path / "headers.toml"
    file.write_text('["images.example"]\nAuthorization = "SECRET"\nReferer = "https://example.org/"\n')

    headers = read_headers_file(str(file))
    make(headers=headers).fetch(f"{site}/image")

    [head] = server.heads
    assert "SECRET" not in head
    assert "Referer: https://example.org/" in head
    assert headers("https", "images.example")["Authorization"] == "SECRET"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not TOML", "must be a readable TOML file"),
        ('Referer = "SECRET"', "must have a table of headers for each host"),
        ('["a b"]\nReferer = "SECRET"', "must have a table of headers for each host"),
        ('["a.example"]\nHost = "SECRET"', "a.example that cannot be set: Host"),
        ('["a.example"]\nReferer = "SECRET\\r\\nX: y"', "a.example, Referer that is not printable"),
        ('["a.example"]\nReferer = 1', "a.example, Referer that is not printable"),
    ],
)
def test_invalid_headers_file_is_explained(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "headers.toml"
    file.write_text(text)

    with pytest.raises(ValueError, match=reason) as caught:
        read_headers_file(str(file))

    assert "SECRET" not in str(caught.value)


def names(table: dict[str, list[str]]) -> Callable[[str], list[str]]:
    return lambda host: table[host]


def test_nat64_address_counts_as_its_ipv4_address(make: Callable[..., Fetcher]) -> None:
    gateway = ["192.0.0.170", "192.0.0.171", "2001:db8:64::192.0.0.170", "2001:db8:64::192.0.0.171"]
    answers = {"images.example": ["2001:db8:64::1.1.1.1"], "ipv4only.arpa": gateway}
    private = {"images.example": ["2001:db8:64::10.0.0.1"], "ipv4only.arpa": gateway}

    # No machine has an address for documentation: that it is connected to shows that the gateway's prefix is known.
    assert code(make(resolve=names(answers)), "http://images.example/") == "connect_failed"
    assert code(make(resolve=names(private)), "http://images.example/") == "unresolvable_host"


def test_slow_host_does_not_hide_the_nat64_prefix() -> None:
    asked, ended = threading.Event(), threading.Event()
    answers = {"images.example": ["2001:db8:64::1.1.1.1"], "ipv4only.arpa": ["2001:db8:64::192.0.0.170"]}

    def resolve(host: str) -> list[str]:
        if host == "ipv4only.arpa" and not asked.is_set():
            asked.set()
            ended.wait(60)
        return answers[host]

    connector, target = Connector(allow=(), resolve=resolve, threads=2), read_url("http://images.example/")
    with pytest.raises(FetchError, match="in time"):
        connector.connect(target, Download(0.5))
    ended.set()
    with pytest.raises(FetchError) as caught:
        connector.connect(target, Download(60))

    connector.close()
    assert caught.value.code == "connect_failed"


def test_nat64_literal_counts_as_its_ipv4_address(make: Callable[..., Fetcher]) -> None:
    fetcher = make(resolve=names({"ipv4only.arpa": ["192.0.0.170"]}))

    assert code(fetcher, "http://[64:ff9b::10.0.0.1]/") == "private_address"
    fetcher.validate("http://[64:ff9b::1.1.1.1]/")
