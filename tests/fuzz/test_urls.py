"""URLs and addresses: only public ones are fetched, and other parsers read the same host and port."""

import http.client
import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from api.errors import BY_STATUS
from common.errors import FetchError
from common.net import connector
from common.net.addresses import DEFAULT_PORTS, is_public, read_url
from common.net.fetch import Fetcher
from common.net.nat64 import WELL_KNOWN, translated

Fuzz = Callable[..., None]

KNOWN = {spec.code for status in (400, 422) for spec in BY_STATUS[status]}
v4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
near_v4 = st.sampled_from(
    (
        *("0.0.0.0", "10.0.0.0", "100.64.0.0", "127.0.0.0", "169.254.169.254", "172.16.0.0", "172.32.0.0"),
        *("192.0.0.0", "192.168.0.0", "198.18.0.0", "198.20.0.0", "224.0.0.0", "240.0.0.0"),
    )
)
around = st.builds(
    lambda base, by: ipaddress.IPv4Address((int(ipaddress.IPv4Address(base)) + by) % 2**32),
    near_v4,
    st.integers(-300, 300),
)
any_v4 = v4 | around
v6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
CARRIERS = (
    "::",
    "::ffff:0:0",
    "::ffff:0:0:0",
    "64:ff9b::",
    "64:ff9b:1::",
    "2002::",
    "2001::",
    "fc00::",
    "fe80::",
    "fec0::",
    "ff02::",
    "2001:db8::",
    "3fff::",
    "2606::",
)
carried = st.builds(
    lambda base, inside, shift: ipaddress.IPv6Address(
        (int(ipaddress.IPv6Address(base)) | int(inside) << shift) % 2**128
    ),
    st.sampled_from(CARRIERS),
    any_v4,
    st.sampled_from((0, 16, 80)),
)
addresses = any_v4 | carried | v6


def belongs_to_the_internet(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether the standard library classifies an address, and those inside it, as global."""
    address = translated(address, [WELL_KNOWN])
    inner = [address]
    if isinstance(address, ipaddress.IPv6Address):
        inner += [one for one in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if one is not None]
    return all(one.is_global and not one.is_multicast and not one.is_reserved for one in inner)


def test_addresses(fuzz: Fuzz) -> None:
    def check(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        assert not is_public(str(address)) or belongs_to_the_internet(address)

    fuzz(addresses, check, short=500, long=15_000)


def spelled(address: ipaddress.IPv4Address | ipaddress.IPv6Address, how: int) -> str:
    """Return one of the spellings of an address."""
    if isinstance(address, ipaddress.IPv6Address):
        return f"[{(str(address), address.exploded, f'{address}%25lo', str(address).upper())[how % 4]}]"
    number = int(address)
    parts = address.packed
    return (
        str(address), str(number), hex(number), f"0{number:o}", ".".join(f"0{part:o}" for part in parts),
        ".".join(map(hex, parts)), f"{parts[0]}.{number & 0xFFFFFF}", f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        str(address).replace(".", "。"), str(address).translate({48 + digit: 0xFF10 + digit for digit in range(10)}),
        f"{address}.", f"[::ffff:{address}]",
    )[how % 12]  # fmt: skip


hosts = st.one_of(
    st.builds(spelled, addresses, st.integers(0, 11)),
    st.sampled_from(
        (
            "example.org",
            "EXAMPLE.org.",
            "localhost",
            "bücher.example",
            "ⓔxample.org",
            "a_b.c",
            "straße.de",
            "xn--a",
            "",
            "..",
            "a..b",
            "[",
            "[]",
            "[::1",
            "1.2.3.4.5",
        )
    ),
    st.text(max_size=12),
)
marks = st.text("/\\@:#?%&[].;,\t\n\r \x00٪。＠／", max_size=3)
ports = st.sampled_from(("", ":", ":80", ":443", ":0", ":65536", ":00080", ":22", ":٨٠", ":8 0", ":-1"))
schemes = st.sampled_from(
    (
        "http://",
        "https://",
        "HTTP://",
        "http:/",
        "http:",
        "http:\\\\",
        "//",
        "",
        "ftp://",
        "file://",
        "http://a@",
        "http://a:b@",
        " http://",
    )
)
rests = st.sampled_from(
    ("", "/", "/a.jpg", "?a", "#a", "/@example.org", "/a%2e%2e/b", "/%", "/ä", "\\@example.org", "/a b")
) | st.text(max_size=10).map("/{}".format)
urls = st.builds(
    "{}{}{}{}{}{}".format,
    schemes,
    marks | st.just("") | st.just(""),
    hosts,
    marks | st.just("") | st.just(""),
    ports,
    rests,
)


def test_urls(fuzz: Fuzz) -> None:
    """Two other parsers read the same host and port in the received URL and in the requested one."""

    def check(url: str) -> None:
        try:
            target = read_url(url)
        except FetchError as error:
            assert error.code in KNOWN
            return
        for text in (url, target.url):
            seen = {(plain(urlsplit(text).hostname or ""), urlsplit(text).port)}
            with suppress(LocationParseError):
                # It rejects some names that exist in DNS.
                parsed = parse_url(text)
                seen.add((plain((parsed.host or "").strip("[]")), parsed.port))
            assert {(host, port or DEFAULT_PORTS[target.scheme]) for host, port in seen} == {(target.host, target.port)}
        assert target.path.isascii()
        http.client.HTTPConnection(target.host, target.port).putrequest  # noqa: B018 - the constructor parses host and port
        if target.is_literal:
            [*_, (address, *_)] = socket.getaddrinfo(target.host, 80, flags=socket.AI_NUMERICHOST)[0]
            assert ipaddress.ip_address(address) == ipaddress.ip_address(target.host)

    fuzz(urls, check, short=800, long=15_000)


def plain(host: str) -> str:
    """Return a host in the form that is passed to a resolver."""
    with suppress(OSError):
        return str(ipaddress.IPv6Address(socket.inet_pton(socket.AF_INET6, host)))
    name = host.encode("idna").decode() if not host.isascii() else host
    name = name.lower().removesuffix(".")
    with suppress(OSError):
        return socket.inet_ntoa(socket.inet_aton(name))
    return name


def test_connections(fuzz: Fuzz, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only public addresses are connected to, for every spelling of a URL and every result of DNS."""
    connected: list[str] = []
    answers: list[str] = []

    def refuse(address: str, *_: object) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(connector, "_connect", refuse)
    asked = st.tuples(urls | hosts.map("http://{}/".format), st.lists(addresses.map(str), min_size=1, max_size=3))
    with Fetcher(max_bytes=1000, timeout_s=60, resolve=lambda _: list(answers)) as fetcher:

        def check(one: tuple[str, list[str]]) -> None:
            url, answers[:] = one
            connected.clear()
            with pytest.raises(FetchError) as caught:
                fetcher.fetch(url)
            assert caught.value.code in KNOWN
            assert all(belongs_to_the_internet(ipaddress.ip_address(address)) for address in connected)
            assert bool(connected) == (caught.value.code == "connect_failed")

        fuzz(asked, check, short=300, long=6_000)
