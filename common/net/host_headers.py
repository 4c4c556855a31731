"""Headers of downloads by host, from a file: hosts that demand a Referer or an Authorization.

The file is TOML, with a table for each host; `*.` stands for all of its subdomains. Over plain HTTP only the headers of
a table whose name begins with `http://` are sent, and those in PUBLIC:

    ["images.example.org"]
    Authorization = "Bearer …"

    ["*.example.net"]
    Referer = "https://example.net/"

    ["http://cameras.example.org"]
    Authorization = "Basic …"
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HOST = re.compile(r"(http://)?((\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]+)")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
# Everybody on the way reads them anyway, or may.
PUBLIC = {"Accept", "Accept-Language", "Referer", "User-Agent"}
HTTP = "http"
# They frame the message, or would change what the response means.
_RESERVED = {
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


@dataclass(frozen=True, slots=True)
class HostHeaders:
    """The headers by host; their values are secret."""

    by_host: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    def __call__(self, scheme: str, host: str) -> Mapping[str, str]:
        """Return the headers for a host in lower case: its own, or those of the nearest domain above it."""
        if scheme != HTTP:
            return self._table("", host)
        public = {name: value for name, value in self._table("", host).items() if name in PUBLIC}
        return {**public, **self._table(f"{HTTP}://", host)}

    def _table(self, prefix: str, host: str) -> Mapping[str, str]:
        labels = host.split(".")
        domains = (f"*.{'.'.join(labels[start:])}" for start in range(1, len(labels)))
        names = [f"{prefix}{name}" for name in (host, *domains)]
        return next((self.by_host[name] for name in names if name in self.by_host), {})


def read_headers_file(path: str) -> HostHeaders:
    """Return the headers in a file. Raises ValueError, which contains no value."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        message = "must be a readable TOML file"
        raise ValueError(message) from None
    return HostHeaders({host.lower(): _headers(host, table) for host, table in tables.items()})


def _headers(host: str, table: Any) -> dict[str, str]:  # noqa: ANN401 - of a file
    if not _HOST.fullmatch(host.lower()) or not isinstance(table, dict):
        message = f'must have a table of headers for each host, as ["images.example.org"]; it has {host}'
        raise ValueError(message)
    for name, value in table.items():
        if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
            message = f"has a header for {host} that cannot be set: {name}"
            raise ValueError(message)
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            message = f"has a value for {host}, {name} that is not printable ASCII text"
            raise ValueError(message)
    # In one case, so that they replace headers of the download instead of being sent beside them.
    return {name.title(): value for name, value in table.items()}
