"""Redis behind Sentinels: the URL that names them, read."""

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

SCHEME = "sentinel"
PORT = 26379
TOP_PORT = 65_535

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The Sentinels to ask where the Redis called `service` is now; user and password are that Redis's own.

    >>> Sentinels.parse("sentinel://:s%40fe@one.lan,two.lan:26380/main/1")
    Sentinels(hosts=(('one.lan', 26379), ('two.lan', 26380)), service='main', db=1, username=None)
    """

    hosts: tuple[tuple[str, int], ...]
    service: str
    db: int
    username: str | None
    password: str | None = field(repr=False)
    sentinel_password: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `sentinel://[[user]:password@]host[:port],…/service[/db][?sentinel_password=…]`; raises ValueError."""
        parts = urlsplit(url)
        login, _, places = parts.netloc.rpartition("@")
        service, _, db = parts.path.removeprefix("/").partition("/")
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        password = query.pop("sentinel_password", None)
        if parts.scheme != SCHEME or not _NAME.fullmatch(service) or query or parts.fragment:
            raise ValueError("must name Sentinels and the service that they watch")
        user, _, secret = login.partition(":")
        return cls(
            hosts=tuple(_host(place) for place in places.split(",")),
            service=service,
            db=int(db or 0),
            username=unquote(user) or None,
            password=unquote(secret) or None,
            sentinel_password=password,
        )


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found[2] or PORT) if found else 0
    if found is None or not 0 < port <= TOP_PORT:
        raise ValueError("must name Sentinels as host:port, separated by commas")
    return found[1].strip("[]"), port
