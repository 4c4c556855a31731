"""URLs of outgoing requests: the strict parser, and the rules for public and allowed addresses.

A URL is parsed once into a frozen `Target`. Checks, DNS, connection and request all use that target, so no second
parser can see a different host.
"""

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self
from unicodedata import ucd_3_2_0
from urllib.parse import quote

from common.errors import FetchError
from common.net import nat64

URL_MAX_BYTES = 8192
DEFAULT_PORTS = {"http": 80, "https": 443}
PORT_MAX = 65_535

# ipaddress.is_global is not enough: it differs between Python versions, and is true for multicast and for IPv6 forms
# that contain an IPv4 address.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this host: 0.0.0.0 reaches loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; contains a cloud's metadata service, 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's control plane, reachable from its virtual machines
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; contains a cloud's metadata service, 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments, including Teredo, which embeds an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which embeds an IPv4 address
        "3fff::/20",  # documentation
    )
)
# The only global unicast space that IANA has assigned. Outside are loopback, v4-mapped, v4-compatible, unique local,
# link-local, site-local and multicast addresses.
_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30}):", re.IGNORECASE)
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(
    r"(?:\[(?P<literal>[0-9a-z:.%]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{0,5}))?", re.IGNORECASE
)
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_STRAY_PERCENT = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed URL: `host` is ASCII, lower case and without a trailing dot; `path` includes the query.

    `is_literal`: `host` is an IP address in its canonical form.
    """

    scheme: str
    host: str
    port: int
    path: str
    is_literal: bool

    @property
    def url(self) -> str:
        """The target as a URL in canonical form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def is_public(address: str, prefixes: Sequence[ipaddress.IPv6Network] = (nat64.WELL_KNOWN,)) -> bool:
    """Return whether an IP address, as text, belongs to the public internet.

    An address that a NAT64 gateway translates belongs where the IPv4 address inside it does; `prefixes` are the
    gateways' prefixes.

    >>> [is_public(address) for address in ("1.1.1.1", "10.0.0.1", "::ffff:1.1.1.1", "2606:4700::1111")]
    [True, False, False, True]
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None:
        return False
    parsed = nat64.translated(parsed, prefixes)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed not in _IPV6_UNICAST:
        return False
    return not any(parsed in network for network in _NOT_PUBLIC)


def is_loopback(host: str) -> bool:
    """Return whether a host, as its name or its address, is this machine only.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "0.0.0.0", "match.lan")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class AllowedTarget:
    """A private host name or network that may be fetched from.

    >>> AllowedTarget.parse("10.1.0.0/16").allows("images.lan", "10.1.2.3", 80)
    True
    >>> AllowedTarget.parse("127.0.0.1:9000").allows("127.0.0.1", "127.0.0.1", 80)
    False
    """

    host: str | None
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `host`, `host:port`, `network` or `network:port`; IPv6 with a port is in [ ]."""
        match = re.fullmatch(
            r"\[([^\]]+)\](?::([0-9]{1,5}))?|([^:]+)(?::([0-9]{1,5}))?|([0-9a-fA-F:]+(?:/[0-9]{1,3})?)", text
        )
        if match is None:
            message = f"has an entry that is not a host, network or host:port: {text}"
            raise ValueError(message)
        name = match[1] or match[3] or match[5]
        digits = match[2] or match[4]
        port = int(digits) if digits else None
        if port is not None and not 0 < port <= PORT_MAX:
            message = f"has an entry with a port out of range: {text}"
            raise ValueError(message)
        try:
            return cls(None, ipaddress.ip_network(name), port)
        except ValueError:
            if not re.fullmatch(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]*[A-Za-z]\.?", name):
                message = f"has an entry that is neither a host nor a network: {text}"
                raise ValueError(message) from None
            return cls(name.rstrip(".").lower(), None, port)

    def allows(self, host: str, address: str, port: int) -> bool:
        """Return whether this entry allows a connection to `address`:`port`, where the URL names `host`."""
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return ipaddress.ip_address(address) in self.network
        return host.rstrip(".").lower() == self.host


def read_url(url: str) -> Target:
    """Parse a URL strictly. Raises FetchError for one that two parsers could read differently.

    Spaces at its ends are ignored, and one in its path or query is %20, as in browsers.
    """
    url = url.strip(" ")
    check_characters(url)
    match = _URL.match(url)
    if match is None:
        raise _unsupported_scheme(url)
    scheme = match["scheme"].lower()
    host, port = _read_authority(match["authority"], DEFAULT_PORTS[scheme])
    # urllib3 would escape these characters: escaped here, it sends the path unchanged (but writes %2f as %2F).
    path = quote(_STRAY_PERCENT.sub("%25", match["path"]), safe="!$%&'()*+,/:;=?@~")
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}", ":" in host or _is_number(host))


def check_characters(url: str) -> None:
    """Raise FetchError for characters that some parsers drop, fold or treat as an end."""
    # str.isprintable is false for control and format characters, for lone surrogates and for every space but one.
    if not url.isprintable() or "\\" in url:
        raise _bad_url("has a backslash or a control character")
    if len(url.encode()) > URL_MAX_BYTES:
        raise _bad_url(f"is longer than {URL_MAX_BYTES} bytes")


def _bad_url(reason: str) -> FetchError:
    return FetchError(f"the URL {reason}", code="bad_url")


def _unsupported_scheme(url: str) -> FetchError:
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1].lower() in DEFAULT_PORTS:
        return _bad_url("must start with http:// or https://")
    message = f"the URL must start with http:// or https://, not with {scheme[1].lower()}:"
    return FetchError(message, code="forbidden_scheme")


# An add parses its URL three times, and most adds have the host of the one before.
@lru_cache(maxsize=128)
def _read_authority(authority: str, default_port: int) -> tuple[str, int]:
    if "@" in authority:
        raise FetchError("the URL has a user name or password before its host", code="forbidden_userinfo")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _bad_url("has no valid host")
    port = int(match["port"] or default_port)
    if not 0 < port <= PORT_MAX:
        raise _bad_url(f"has a port outside 1 to {PORT_MAX}")
    return read_ipv6(match["literal"]) if match["literal"] else read_name(match["name"]), port


def read_ipv6(literal: str) -> str:
    """Return an IPv6 address in its canonical form."""
    if "%" in literal:
        # A scope names an interface of this machine, and parsers differ on its syntax.
        raise FetchError("the URL's host is not on the public internet", code="private_address")
    try:
        return str(ipaddress.IPv6Address(literal))
    except ValueError:
        raise _bad_url("has an invalid IPv6 address in its brackets") from None


def read_name(name: str) -> str:
    """Return the name in the form of DNS, certificate and Host header, or the address that it spells.

    >>> read_name("Bücher.example."), read_name("0x7f.1")
    ('xn--bcher-kva.example', '127.0.0.1')
    """
    try:
        # The codec folds full-width dots, circled digits and the like, so that the checks below see their meaning.
        ascii_name = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        raise _bad_url("has a host name that does not exist in DNS") from None
    # IDNA 2003, which Python implements, and IDNA 2008 map these to different hosts. Characters added after Unicode 3.2
    # are unknown to the former.
    if not name.isascii() and (
        not {"ß", "ẞ", "ς"}.isdisjoint(name) or any(ucd_3_2_0.category(char) == "Cn" for char in name)
    ):
        raise _bad_url("has a host name that must be written as xn--…")
    host = ascii_name.lower().removesuffix(".")
    if not _NAME.fullmatch(host):
        raise _bad_url("has an invalid host name")
    return _read_ipv4(host) if _is_number(host) else host


def _is_number(host: str) -> bool:
    """Return whether resolvers read a host as an address: no top-level domain is a number."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _read_ipv4(host: str) -> str:
    """Return the address that the system reads in a decimal, octal, hex or short form."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        raise _bad_url("has a numeric host that is not an IP address") from None
