"""Which hosts a URL may name: the one reading of a URL, and which addresses are public or allowed all the same.

A URL is read strictly, once, into a frozen `Target`. Whatever is judged, resolved, connected to and asked for is that
target, so no second parser can see another host.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Self
from unicodedata import ucd_3_2_0
from urllib.parse import quote

from common.errors import FetchError

URL_MAX_BYTES = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}
PORT_MAX = 65_535

# ipaddress.is_global is not enough: it differs between Python versions, and says yes to multicast and to IPv6 forms
# that carry an IPv4 address inside.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
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
        "2001::/23",  # protocol assignments, among them Teredo, which carries an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
)
# Only this was ever given out; outside lie loopback, v4-mapped, v4-compatible, NAT64, unique local, link-local,
# site-local and multicast addresses.
_IPV6_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")

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
    """What a URL asks for: `host` is ASCII, lower case and without a dot at its end; `path` includes the query.

    `is_literal`: `host` is an IP address in its canonical form.
    """

    scheme: str
    host: str
    port: int
    path: str
    is_literal: bool

    @property
    def url(self) -> str:
        """The same, in its one canonical form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def is_public(address: str) -> bool:
    """Say whether an IP address, as text, belongs to the public internet.

    >>> [is_public(address) for address in ("1.1.1.1", "10.0.0.1", "::ffff:1.1.1.1", "2606:4700::1111")]
    [True, False, False, True]
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and (parsed.scope_id is not None or parsed not in _IPV6_GIVEN_OUT):
        return False
    return not any(parsed in network for network in _NOT_PUBLIC)


@dataclass(frozen=True, slots=True)
class AllowedTarget:
    """A host name or a network that may be fetched although it is private.

    >>> AllowedTarget.parse("10.1.0.0/16").admits("images.lan", "10.1.2.3", 80)
    True
    >>> AllowedTarget.parse("127.0.0.1:9000").admits("127.0.0.1", "127.0.0.1", 80)
    False
    """

    host: str | None
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host`, `host:port`, `network` or `network:port`; IPv6 with a port stands in [ ]."""
        match = re.fullmatch(
            r"\[([^\]]+)\](?::([0-9]{1,5}))?|([^:]+)(?::([0-9]{1,5}))?|([0-9a-fA-F:]+(?:/[0-9]{1,3})?)", text
        )
        if match is None:
            message = f"has an entry that is no host, network or host:port: {text}"
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

    def admits(self, host: str, address: str, port: int) -> bool:
        """Say whether a connection to `address`:`port`, asked for as `host`, is wanted."""
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return ipaddress.ip_address(address) in self.network
        return host.rstrip(".").lower() == self.host


def read_url(url: str) -> Target:
    """Read a URL strictly: what two parsers could read differently is refused with a FetchError."""
    refuse_odd_text(url)
    match = _URL.match(url)
    if match is None:
        raise _wrong_start(url)
    scheme = match["scheme"].lower()
    host, port = _read_authority(match["authority"], DEFAULT_PORTS[scheme])
    # All that urllib3 would escape is escaped here, so that it sends this very text (it writes %2f as %2F).
    path = quote(_STRAY_PERCENT.sub("%25", match["path"]), safe="!$%&'()*+,/:;=?@~")
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}", ":" in host or _is_number(host))


def refuse_odd_text(url: str) -> None:
    """Refuse what parsers drop, fold or take for an end."""
    # str.isprintable is false for control and format characters, for lone surrogates and for every space but one.
    if not url.isprintable() or " " in url or "\\" in url:
        raise _bad_url("has a space, a backslash or a control character")
    if len(url.encode()) > URL_MAX_BYTES:
        raise _bad_url(f"is longer than {URL_MAX_BYTES} bytes")


def _bad_url(reason: str) -> FetchError:
    return FetchError(f"the URL {reason}", code="bad_url")


def _wrong_start(url: str) -> FetchError:
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1].lower() in DEFAULT_PORTS:
        return _bad_url("must start with http:// or https://")
    message = f"the URL must start with http:// or https://, not with {scheme[1].lower()}:"
    return FetchError(message, code="forbidden_scheme")


def _read_authority(authority: str, default_port: int) -> tuple[str, int]:
    if "@" in authority:
        raise FetchError("the URL has a user name or password before its host", code="forbidden_userinfo")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _bad_url("has no host, or one that cannot be read")
    port = int(match["port"] or default_port)
    if not 0 < port <= PORT_MAX:
        raise _bad_url(f"has a port that is not from 1 to {PORT_MAX}")
    return read_ipv6(match["literal"]) if match["literal"] else read_name(match["name"]), port


def read_ipv6(literal: str) -> str:
    """Return an IPv6 address in its canonical form."""
    if "%" in literal:
        # A scope is of this machine's own networks, and parsers differ on how it is written.
        raise FetchError("the URL's host is not on the public internet", code="private_address")
    try:
        return str(ipaddress.IPv6Address(literal))
    except ValueError:
        raise _bad_url("has no IPv6 address between its brackets") from None


def read_name(name: str) -> str:
    """Return the name as DNS, certificate and Host header know it, or the address that it spells.

    >>> read_name("Bücher.example."), read_name("0x7f.1")
    ('xn--bcher-kva.example', '127.0.0.1')
    """
    try:
        # The codec folds full-width dots, circled digits and the like, so that what follows sees what they mean.
        ascii_name = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        raise _bad_url("has a host name that does not exist in DNS") from None
    # IDNA 2003, which Python has, and 2008 send these to different hosts; and of what came after Unicode 3.2 the former
    # does not know what it stands for.
    if not name.isascii() and (
        not {"ß", "ẞ", "ς"}.isdisjoint(name) or any(ucd_3_2_0.category(char) == "Cn" for char in name)
    ):
        raise _bad_url("has a host name that has to be written as xn--…")
    host = ascii_name.lower().removesuffix(".")
    if not _NAME.fullmatch(host):
        raise _bad_url("has no valid host name")
    return _read_ipv4(host) if _is_number(host) else host


def _is_number(host: str) -> bool:
    """Say whether a host is an address to any resolver: no top-level domain is a number."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _read_ipv4(host: str) -> str:
    """Return the address that decimal, octal, hex and short forms mean to the system."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        raise _bad_url("has a host that is a number but no IP address") from None
