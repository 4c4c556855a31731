"""The URL of a Redis behind Sentinels."""

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Self
from urllib.parse import unquote, unquote_plus

SCHEME = "sentinel"
PORT = 26379
MAX_PORT = 65_535

# Not with urlsplit(): since the fix of CVE-2025-0938 it rejects a bracketed address after another host.
_URL = re.compile(
    rf"""{SCHEME}://
    (?: (?P<username>[^/?#:]*) (?: : (?P<password>[^/?#]*) )? @ )?
    (?P<hosts>[^/?#@]+)
    / (?P<service>[A-Za-z0-9._-]+)
    (?: / (?P<db>[0-9]*) )?
    (?: \?sentinel_password= (?P<sentinel_password>[^&#]+) )?""",
    re.VERBOSE,
)
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The Sentinels that watch the Redis named `service`; `username` and `password` are for that Redis.

    >>> Sentinels.parse("sentinel://:s%40fe@one.lan,[2001:db8::2]:26380/main/1")
    Sentinels(hosts=(('one.lan', 26379), ('2001:db8::2', 26380)), service='main', db=1, username=None)
    """

    hosts: tuple[tuple[str, int], ...]
    service: str
    db: int
    username: str | None
    password: str | None = field(repr=False)
    sentinel_password: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse `sentinel://[[user]:password@]host[:port],…/service[/db][?sentinel_password=…]`; raises ValueError."""
        match = _URL.fullmatch(url)
        if match is None:
            raise ValueError("must name Sentinels and the service that they watch")
        return cls(
            hosts=tuple(_parse_host(host) for host in match["hosts"].split(",")),
            service=match["service"],
            db=int(match["db"] or 0),
            username=unquote(match["username"] or "") or None,
            password=unquote(match["password"] or "") or None,
            sentinel_password=unquote_plus(match["sentinel_password"] or "") or None,
        )


def _parse_host(text: str) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    port = int(match["port"] or PORT) if match else 0
    if match is None or not 0 < port <= MAX_PORT:
        raise ValueError("must name Sentinels as host:port, separated by commas")
    return match["name"] or str(IPv6Address(match["ipv6"])), port
