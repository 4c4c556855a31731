"""Requests of other sites' pages: an open API on loopback is not open to every page that its user visits.

A browser sends a page's requests from its user's machine, so the address shows nothing. `Sec-Fetch-Site` and `Origin`
name the page's site. After DNS rebinding the page has the API's own site, but under another host name: the Host header
shows that. A request with a valid API key needs no check, because no other site's page has the key.
"""

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from flask import request

from api.endpoints import Endpoint
from api.errors import ERRORS
from common.errors import MatchError

# Values of Sec-Fetch-Site for a page of this host, and for an address that the reader typed.
_OWN = frozenset({"same-origin", "none"})


class CrossSite(MatchError):
    """A page of another site sent the request."""

    code = "cross_site"


class UnknownHost(MatchError):
    """The Host header names another service."""

    code = "unknown_host"


class Sites:
    """Checks the requests for `endpoints` while the API has no keys.

    `origins` are those of CORS. `hosts` are the names of this API in lower case; None: any name.
    """

    def __init__(
        self, endpoints: Collection[Endpoint], *, origins: Collection[str], hosts: Collection[str] | None
    ) -> None:
        # Probes and the documentation are open to everybody, and show nothing that is stored.
        guarded = [endpoint for endpoint in endpoints if endpoint.scope is not None or endpoint.is_page]
        self._is_page: Mapping[str, bool] = {endpoint.name: endpoint.is_page for endpoint in guarded}
        self._origins = frozenset(origins)
        self._hosts = hosts

    def check(self) -> None:
        """Raise CrossSite or UnknownHost for a request that a page of another site sent."""
        is_page = self._is_page.get(request.endpoint or "")
        if is_page is None:
            return
        headers = request.headers
        if not self._is_own_host(_name(f"//{request.host}")):
            message = f"{ERRORS['unknown_host'].text} (MATCH_ALLOWED_HOSTS)"
            raise UnknownHost(message)
        # A link from anywhere may open a page: the other site cannot read it.
        is_opened = is_page and request.method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate"
        if not is_opened and not self._is_own(headers.get("Sec-Fetch-Site"), headers.get("Origin")):
            raise CrossSite(ERRORS["cross_site"].text)

    def _is_own_host(self, name: str | None) -> bool:
        """Return whether the Host header names this service; no DNS record changes what an address is."""
        return self._hosts is None or (name is not None and (name in self._hosts or _is_address(name)))

    def _is_own(self, site: str | None, origin: str | None) -> bool:
        """Return whether this service's page sent the request, a page of an allowed origin, or no page.

        Browsers send `Sec-Fetch-Site` over TLS and on loopback, and `Origin` with each method but GET. Scheme and port
        are not compared, since a proxy may have changed them.
        """
        if origin in self._origins:
            return True
        if site is not None:
            return site in _OWN
        return origin is None or _name(origin) == (_name(f"//{request.host}") or "")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(url: str) -> str | None:
    """Return the host of a URL in lower case, without its port; None for an invalid one."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
