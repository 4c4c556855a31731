"""flower's configuration: requests of other sites' pages, and to unknown host names, are refused with 403.

A page of another site could use the browser of somebody who can reach flower, also on loopback, and a name of that site
may come to mean 127.0.0.1 (DNS rebinding). These are the rules of api/other_sites.py: `Sec-Fetch-Site` and `Origin`
name the page's site, and the Host header must be `localhost`, an address, or a name in FLOWER_ALLOWED_HOSTS
(`flower.example.org,match-flower`). `/healthcheck` is exempt.

flower reads it by `--conf`. The class replaces flower's own in the command, which has no option for this.
"""

# ruff: noqa: INP001 - flower executes this file; no package has it

import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

from flower import command
from flower.app import Flower
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest
from tornado.web import ErrorHandler

# Values of Sec-Fetch-Site for a page of this host, and for an address that the reader typed.
OWN_SITES = frozenset({"same-origin", "none"})
OWN_NAMES = frozenset({"localhost", *os.environ.get("FLOWER_ALLOWED_HOSTS", "").lower().split(",")}) - {""}
OPEN_PATHS = frozenset({"/healthcheck"})


class GuardedFlower(Flower):  # type: ignore[misc]  # flower has no types
    """flower, with a check of each request before its handler."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate:  # noqa: ANN401 - tornado's interface
        """Return the handler of a request, or that of an error."""
        if request.path not in OPEN_PATHS and not is_own(request):
            return self.get_handler_delegate(request, ErrorHandler, {"status_code": 403})
        return super().find_handler(request, **kwargs)


def is_own(request: HTTPServerRequest) -> bool:
    """Return whether a page of this host, or no page, sent the request to a name of this host."""
    host = _name(f"//{request.host}")
    if host not in OWN_NAMES and not _is_address(host):
        return False
    headers = request.headers
    if request.method == "GET" and _is_opened(headers):
        return True
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    return site in OWN_SITES if site is not None else origin is None or _name(origin) == host


def _is_opened(headers: HTTPHeaders) -> bool:
    """Return whether a link from anywhere opens a page: the other site cannot read it."""
    return headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(url: str) -> str:
    """Return the host of a URL in lower case, without its port; "" for an invalid one."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


command.Flower = GuardedFlower
