"""The fetcher before it connects: addresses, URLs and the request that it sends."""

import contextlib
import io
import ipaddress
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import urllib3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import FetchError
from common.net import addresses, fetch
from common.net.addresses import AllowedTarget, is_public, read_url
from common.net.connector import TransientFetchError
from common.net.fetch import Fetcher
from common.net.nat64 import WELL_KNOWN, translated
from common.net.status import read_retry_after

PRIVATE_ADDRESSES = [
    "0.0.0.0",  # noqa: S104 - rejected, not bound
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::127.0.0.1",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:2::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%1",
    "2606:4700::1111%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC_ADDRESSES = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "64:ff9b::8.8.8.8",
]
LOOPBACK_SPELLINGS = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "0x7f.1",
    "0x7f.0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0x0.1",
    "00000000177.0.0.1",
    "127。0。0。1",
    "127．0．0．1",  # noqa: RUF001 - full-width dots
    "127｡0｡0｡1",
    "127․0․0․1",  # noqa: RUF001 - one dot leaders
    "①②⑦.⓪.⓪.①",
    "１２７.０.０.１",  # noqa: RUF001 - full-width digits
    "𝟏𝟐𝟕.𝟎.𝟎.𝟏",  # noqa: RUF001 - mathematical digits
    "⓪x7f.1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:7F00:0001]",
    "[::127.0.0.1]",
    "[::]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[::1%25lo]",
    "0",
    "0.0",
    "0x0",
    "00",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "425.510.425.510",
]
BAD_URLS = {
    "nothing": "",
    "relative": "images/cat.jpg",
    "absolute path": "/etc/passwd",
    "no scheme": "//images.example/cat.jpg",
    "no slashes": "http:images.example",
    "one slash": "http:/images.example",
    "three slashes": "http:///images.example",
    "no host": "http://",
    "no host but a query": "http://?x",
    "no host but a port": "http://:80/",
    "space in the host": "http://images example/",
    "tab in the scheme": "ht\ttp://images.example/",
    "tab in the host": "http://images\t.example/",
    "line feed": "http://images.example/\nX: y",
    "header injection": "http://images.example/ HTTP/1.1\r\nX: y",
    "CRLF in the host": "http://images.example\r\nX: y/",
    "NUL": "http://images.example/\0",
    "no-break space": "http://images.example/\N{NO-BREAK SPACE}",
    "line separator": "http://images.example/\N{LINE SEPARATOR}",
    "byte order mark": "\N{ZERO WIDTH NO-BREAK SPACE}http://images.example/",
    "soft hyphen": "http://images.ex\N{SOFT HYPHEN}ample/",
    "zero-width joiner": "http://images.ex\N{ZERO WIDTH JOINER}ample/",
    "lone surrogate": "http://images.example/\ud800",
    "backslash in the host": "http://images.example\\@127.0.0.1/",
    "backslashes for slashes": "http:\\\\127.0.0.1/",
    "backslash in the path": "http://images.example/\\..",
    "percent in the host": "http://127%2e0.0.1/",
    "percent-encoded slash": "http://images.example%2f.127.0.0.1/",
    "full-width slash": "http://images.example／.127.0.0.1/",  # noqa: RUF001 - meant
    "full-width at": "http://images.example＠127.0.0.1/",  # noqa: RUF001 - meant
    "full-width colon": "http://images.example：8080/",  # noqa: RUF001 - meant
    "account of": "http://images℀.example/",
    "two ports": "http://images.example:80:80/",
    "port 0": "http://images.example:0/",
    "port 65536": "http://images.example:65536/",
    "port with a sign": "http://images.example:+80/",
    "port in full-width digits": "http://images.example:８０/",  # noqa: RUF001 - meant
    "port with a letter": "http://images.example:80a/",
    "empty label": "http://images..example/",
    "only a dot": "http://./",
    "two dots at the end": "http://images.example../",
    "label too long": f"http://{'a' * 64}.example/",
    "name too long": f"http://{'a.' * 127}example/",
    "other label too long": f"http://{'ä' * 64}.example/",
    "IDNA 2003 and 2008 differ": "http://straße.example/",
    "unassigned in IDNA 2003": "http://a\ufe13b.example/",
    "quote in the host": "http://images'.example/",
    "brackets in the host": "http://images[.example/",
    "brackets around a name": "http://[images.example]/",
    "brackets around IPv4": "http://[127.0.0.1]/",
    "brackets unclosed": "http://[::1/",
    "text after brackets": "http://[::1].images.example/",
    "IPv6 without brackets": "http://::1/",
    "IPvFuture": "http://[v1.::1]/",
    "five numbers": "http://1.2.3.4.5/",
    "number too large": "http://4294967296/",
    "part too large": "http://1.2.3.256/",
    "last part too large": "http://1.2.65536/",
    "octal with a 9": "http://1.2.3.09/",
    "name ending in a number": "http://images.example.1/",
    "invalid hex digits": "http://images.0xg.0x1/",
    "underscored number": "http://1_0.0.0.1/",
    "too long": f"http://images.example/{'a' * 8192}",
    "too long in UTF-8": f"http://images.example/{'ä' * 4090}",
}
SCHEMES = [
    "file:///etc/passwd",
    "FILE:/etc/passwd",
    "gopher://127.0.0.1:6379/_INFO",
    "ftp://127.0.0.1/",
    "dict://x:11211/",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "jar:http://x!/",
    "localhost:8888/",
    "unix:///run/x.sock",
    "ws://images.example/",
    "httpx://images.example/",
    "blob:http://images.example/1",
]
USERINFO = [
    "http://a@127.0.0.1/",
    "http://images.example@127.0.0.1/",
    "http://a:b@images.example/",
    "http://@images.example/",
    "http://images.example:80@127.0.0.1:80/",
    "http://a@b@images.example/",
    "http://127.0.0.1:80@images.example",
]
PORTS = [1, 22, 25, 79, 81, 444, 6379, 8080, 9200, 11211, 65535]


class FakeSocket:
    """A socket that records what is sent and responds with 404."""

    def __init__(self) -> None:
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def settimeout(self, _timeout_s: float) -> None:
        pass

    def close(self) -> None:
        pass


def request_for(fetcher: Fetcher, url: str) -> bytes:
    """Fetch with a fake socket for each connection; return the sent bytes."""
    fake = FakeSocket()

    def connect(connection: urllib3.connection.HTTPSConnection) -> None:
        connection.sock = fake
        connection.is_verified = True
        fetch.DOWNLOAD.get().is_reused = False

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(FetchError):
        patch.setattr(fetch._Connection, "connect", connect)
        patch.setattr(fetch.Download, "guard", lambda _download, _connected: None)
        fetcher.fetch(url)
    return fake.sent


@pytest.fixture(scope="module")
def fetcher() -> Iterator[Fetcher]:
    with Fetcher(max_bytes=1, timeout_s=1) as fetcher:
        yield fetcher


def error_code(fetcher: Fetcher, url: str) -> str | None:
    try:
        fetcher.validate(url)
    except FetchError as error:
        return error.code
    return None


DATE_PARTS = [
    "Wed,",
    "21",
    "Oct",
    "2015",
    "07:28:00",
    "+0000",
    "GMT",
    "-9999",
    "9" * 20,
    "-1",
    ":",
    ",",
    "\xb2",
    "(",
    "0",
]


@given(st.lists(st.sampled_from(DATE_PARTS)).map(" ".join) | st.text())
@example("Wed, 21 Oct 99999999999999999999 07:28:00 GMT")
@example("Wed, 21 Oct 2015 07:28:00 +99999999999999999999")
@example("Wed, 21 Oct 2015 99999999999:28:00 GMT")
def test_any_retry_after_is_read(value: str) -> None:
    seconds = read_retry_after(value)

    assert seconds is None or seconds >= 0


def test_connections_that_are_always_closed_are_replaced_few_times(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def close(_fetcher: Fetcher, target: addresses.Target, download: fetch.Download, _reserve: object) -> bytes:
        download.is_reused = True
        tried.append(target.host)
        raise TransientFetchError("closed the connection", code=fetch.READ_FAILED)

    monkeypatch.setattr(Fetcher, "_follow_redirects", close)
    # The real time may not end the fetch before.
    monkeypatch.setattr(fetch.Download, "left_s", 1.0)

    with pytest.raises(TransientFetchError):
        fetcher.fetch("http://images.example/")

    assert tried == ["images.example"] * (1 + fetch.REPEATS_MAX)


@pytest.mark.parametrize("address", PRIVATE_ADDRESSES)
def test_an_address_of_a_special_network_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses())
def test_addresses_special_to_python_are_not_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    # A NAT64 gateway connects to the IPv4 address inside.
    address = translated(address, [WELL_KNOWN])
    special = address.is_private or address.is_multicast or address.is_reserved or not address.is_global

    assert not (special and is_public(str(address)))


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
@pytest.mark.parametrize("form", ["http://{}", "https://{}/a?b#c", "HTTP://{}:80/"])
def test_every_spelling_of_an_internal_address_is_recognized(fetcher: Fetcher, host: str, form: str) -> None:
    expected = "bad_url" if host.startswith("425") else "private_address"

    assert error_code(fetcher, form.format(host)) == expected


@pytest.mark.parametrize("address", PRIVATE_ADDRESSES)
def test_an_internal_address_in_a_url_is_refused(fetcher: Fetcher, address: str) -> None:
    host = f"[{address}]" if ":" in address else address

    assert error_code(fetcher, f"http://{host}/") == "private_address"


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS.keys())
def test_ambiguous_urls_are_rejected(fetcher: Fetcher, url: str) -> None:
    assert error_code(fetcher, url) == "bad_url"


@pytest.mark.parametrize("url", SCHEMES)
def test_only_http_and_https_are_fetched(fetcher: Fetcher, url: str) -> None:
    assert error_code(fetcher, url) == "forbidden_scheme"


@pytest.mark.parametrize("url", USERINFO)
def test_userinfo_is_rejected(fetcher: Fetcher, url: str) -> None:
    assert error_code(fetcher, url) == "forbidden_userinfo"


@pytest.mark.parametrize("port", PORTS)
def test_ports_other_than_80_and_443_are_rejected(fetcher: Fetcher, port: int) -> None:
    assert error_code(fetcher, f"http://images.example:{port}/") == "forbidden_port"
    assert error_code(fetcher, f"http://1.1.1.1:{port}/") == "forbidden_port"


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example",
        "http://images.example.",
        "http://images.example:/",
        "http://images.example:443/",
        "https://images.example:80/",
        "HTTPS://IMAGES.EXAMPLE/A.JPG",
        "http://bücher.example/ä.png",
        "http://xn--bcher-kva.example/%C3%A4.png",
        "http://my_bucket.s3.example/a@b:c",
        "http://images.example/?u=http://127.0.0.1/",
        "http://images.example/#@127.0.0.1",
        "http://images.example?@127.0.0.1",
        "http://1.1.1.1/",
        "http://0x01010101/",
        "https://[2606:4700:4700::1111]/",
        "http://127.0.0.1.images.example/",
        "http://localhost/",  # `fetch` checks its addresses
        f"http://images.example/{'a' * 8000}",
    ],
)
def test_an_ordinary_url_is_valid(fetcher: Fetcher, url: str) -> None:
    assert error_code(fetcher, url) is None


@pytest.mark.parametrize(
    ("entry", "url", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1/", None),
        ("127.0.0.1", "http://127.0.0.1:9000/", None),
        ("127.0.0.1", "http://0x7f.1:9000/", None),
        ("127.0.0.1", "http://127.0.0.2/", "private_address"),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]/", "private_address"),
        ("127.0.0.1:9000", "http://127.0.0.1:9000/", None),
        ("127.0.0.1:9000", "http://127.0.0.1/", "private_address"),
        ("127.0.0.1:9000", "http://1.1.1.1:9000/", "forbidden_port"),
        ("127.0.0.1:9000", "http://images.example:9000/", None),  # its address may be the allowed one
        ("127.0.0.1:9000", "http://images.example:9001/", "forbidden_port"),
        ("10.0.0.0/8", "http://10.200.0.1:8080/", None),
        ("[::1]:9000", "http://[::1]:9000/", None),
        ("[::1]:9000", "http://127.0.0.1:9000/", "private_address"),
        ("images.lan:8080", "http://images.lan:8080/", None),
        ("images.lan:8080", "http://IMAGES.LAN.:8080/", None),
        ("images.lan:8080", "http://images.lan:8081/", "forbidden_port"),
        ("images.lan:8080", "http://other.lan:8080/", "forbidden_port"),
        ("images.lan", "http://10.0.0.1/", "private_address"),
        ("images.lan", "file://images.lan/a", "forbidden_scheme"),
        ("images.lan", "http://a@images.lan/", "forbidden_userinfo"),
    ],
)
def test_only_the_named_target_is_allowed(entry: str, url: str, expected: str | None) -> None:
    with Fetcher(max_bytes=1, timeout_s=1, allow=[AllowedTarget.parse(entry)]) as fetcher:
        assert error_code(fetcher, url) == expected


@pytest.mark.parametrize(
    ("url", "request_head"),
    [
        ("http://Images.Example", "GET / HTTP/1.1\r\nHost: images.example\r\n"),
        ("http://images.example.:80?a=b#c", "GET /?a=b HTTP/1.1\r\nHost: images.example\r\n"),
        ("http://images.example:443/%7e/%2f", "GET /%7E/%2F HTTP/1.1\r\nHost: images.example:443\r\n"),
        ('http://images.example/ä"<{`', "GET /%C3%A4%22%3C%7B%60 HTTP/1.1\r\nHost: images.example\r\n"),
        ("http://images.example/50%/a%20b[1]?%", "GET /50%25/a%20b%5B1%5D?%25 HTTP/1.1\r\nHost: images.example\r\n"),
        ("http://images.example//../%2e%2e/a", "GET //../%2E%2E/a HTTP/1.1\r\nHost: images.example\r\n"),
        ("http://[2606:4700:0::1]:443/", "GET / HTTP/1.1\r\nHost: [2606:4700::1]:443\r\n"),
        ("https://[2606:4700:0::1]:443/", "GET / HTTP/1.1\r\nHost: [2606:4700::1]\r\n"),
        ("http://0x01010101/", "GET / HTTP/1.1\r\nHost: 1.1.1.1\r\n"),
        ("http://bücher.example/", "GET / HTTP/1.1\r\nHost: xn--bcher-kva.example\r\n"),
        (" http://images.example/a b?c d ", "GET /a%20b?c%20d HTTP/1.1\r\nHost: images.example\r\n"),
    ],
)
def test_the_request_names_the_validated_host(fetcher: Fetcher, url: str, request_head: str) -> None:
    request = request_for(fetcher, url).decode("ascii")

    assert request.startswith(request_head)
    assert request.endswith("\r\nAccept-Encoding: identity\r\n\r\n")


@pytest.mark.parametrize("url", ["http://a:SECRET@x/", "http://[SECRET/", "http://x:1/SECRET?SECRET#SECRET", "SECRET"])
def test_errors_repeat_no_secret_part_of_a_url(fetcher: Fetcher, url: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetcher.validate(url)

    assert "SECRET" not in str(caught.value)


def test_errors_name_the_host(fetcher: Fetcher) -> None:
    with pytest.raises(FetchError, match=r"^images\.example may only be reached on ports 80 and 443, not on 22$"):
        fetcher.validate("http://images.example:22/")


def test_a_closed_fetcher_raises_its_own_code() -> None:
    fetcher = Fetcher(max_bytes=1, timeout_s=1)
    fetcher.close()

    with pytest.raises(FetchError) as caught:
        fetcher.fetch("http://images.example/")

    assert caught.value.code == "closed"


# Pieces that URL parsers are known to read differently.
ASCII_PIECES = (
    "http https file : / // @ # ? \\ % %2f %40 %00 [ ] ::1 :: ffff: . .. , - _ * ' ; & = | ^ $ ~ { } a A xn--"
)
HOST_PIECES = "127.0.0.1 127 0 1 0x7f 0177 2130706433 10.0.0.1 1.1.1.1 localhost images.example :80 :443 :22 :0"
OTHER_PIECES = "①⓪。．․／＠：？＃ﬀßä\t\n\r\0 \u00a0\u200d"  # noqa: RUF001 - look-alikes are the point
PIECES = st.sampled_from([*ASCII_PIECES.split(), *HOST_PIECES.split(), *OTHER_PIECES])
ODD_HOSTS = st.lists(PIECES, max_size=6).map("".join)
ODD_URLS = st.one_of(
    st.lists(PIECES, max_size=12).map("".join),
    st.builds("{}://{}/{}".format, st.sampled_from(["http", "https"]), ODD_HOSTS, ODD_HOSTS),
    st.builds("http://{}/".format, st.text(max_size=12)),
    st.builds("http://{}.{}/".format, st.text(max_size=6), st.integers(0, 2**33)),
)


@settings(max_examples=500)
@given(ODD_URLS)
@example("http://1.1.1.1 &@127.0.0.1# @10.0.0.1/")
@example("http://127.0.0.1:80\\@images.example/")
@example("http://images.example#@127.0.0.1/")
@example("http://0/")
def test_no_valid_url_names_an_internal_address(fetcher: Fetcher, url: str) -> None:
    if error_code(fetcher, url) is not None:
        return
    host = read_url(url).host

    # The system's reading of the host, for numeric addresses only: no query is sent.
    with contextlib.suppress(socket.gaierror):
        answers = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
        assert all(is_public(str(sockaddr[0])) for *_, sockaddr in answers)


@settings(max_examples=500)
@given(ODD_URLS)
@example("http://images.example;@127.0.0.1/")
@example("http://images.example?@127.0.0.1/")
@example("http://[::1]/")
def test_other_parsers_read_the_same_host(url: str) -> None:
    try:
        target = read_url(url)
    except FetchError:
        return
    hosts = {urlsplit(url).hostname or ""}
    with contextlib.suppress(urllib3.exceptions.LocationParseError):  # a rejection is not a different reading
        hosts.add((urllib3.util.parse_url(url).host or "").strip("[]"))

    # `target.host` is ASCII and, for an address, canonical: normalize the others before comparing.
    folded = {addresses.read_ipv6(host) if ":" in host else addresses.read_name(host) for host in hosts}
    assert folded == {target.host}


@settings(max_examples=500)
@given(ODD_URLS)
def test_no_url_adds_lines_to_a_request(fetcher: Fetcher, url: str) -> None:
    request = request_for(fetcher, url)
    if not request:
        return
    lines = request.split(b"\r\n")
    path = read_url(url).path

    assert len(lines) == 7
    assert all(byte >= 0x20 for line in lines for byte in line)
    assert lines[0].lower() == f"GET {path} HTTP/1.1".lower().encode("ascii")


@pytest.mark.parametrize("scope", ["%lo", "%25lo"])
def test_an_address_with_a_scope_is_rejected(scope: str) -> None:
    with pytest.raises(FetchError) as caught:
        addresses.read_url(f"http://[2606:4700::1111{scope}]/")

    assert caught.value.code == "private_address"
