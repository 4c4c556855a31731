"""Declaration of the pages' endpoints: pages to read, and forms to send."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from flask import Response, request

from api.access.keys import Scope
from api.endpoints import Endpoint
from api.errors import ERRORS
from api.forms.parameters import Parameters
from api.forms.requests import Nothing
from api.services import Services
from api.web.rendering import allowed_scopes, page
from common.errors import MatchError

View = Callable[[Services, Any], Response]
# Values of Sec-Fetch-Site for a page of this host, and for an address that the reader typed.
OWN = frozenset({"same-origin", "none"})


class CrossSite(MatchError):
    """A page of another site sent the form."""

    code = "cross_site"


def readable(name: str, path: str, view: View, *parameters: type[Parameters]) -> Endpoint:
    """Return the endpoint of a page; a request without a key that may read gets the form for a key instead.

    A browser cannot send a key with an address, so the page that asks for the key is open. It shows nothing stored.
    """

    def answer(services: Services, params: Parameters) -> Response:
        if Scope.READ in allowed_scopes(services.settings):
            return view(services, params)
        return page(services, "key.html", status=401 if "Authorization" in request.headers else 200)

    return Endpoint(
        name=f"web.{name}", path=path, scope=None, methods=("GET",), view=answer, parameters=parameters or (Nothing,)
    )


def form(name: str, path: str, view: View, *parameters: type[Parameters], scope: Scope, images: int = 0) -> Endpoint:
    """Return the endpoint that a page's form is sent to; forms of other sites are rejected."""

    def answer(services: Services, params: Parameters) -> Response:
        check_site(request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin"), request.host)
        return view(services, params)

    return Endpoint(
        name=f"web.{name}",
        path=path,
        scope=scope,
        methods=("POST",),
        view=answer,
        parameters=parameters or (Nothing,),
        images=images,
    )


def check_site(site: str | None, origin: str | None, host: str) -> None:
    """Raise CrossSite for a form of another site: without keys any page could otherwise send one in a reader's name.

    Browsers send `Sec-Fetch-Site` over TLS and on loopback, and `Origin` with every form. The scheme is not compared,
    since a proxy may have ended TLS. A client that sends neither is not a browser.
    """
    is_own = site in OWN if site is not None else origin is None or urlsplit(origin).netloc == host
    if not is_own:
        raise CrossSite(ERRORS["cross_site"].text)
