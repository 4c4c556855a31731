"""Declaration of the pages' endpoints: pages to read, and forms to send."""

from collections.abc import Callable
from typing import Any

from flask import Response, request

from api.access.keys import Scope
from api.endpoints import Endpoint
from api.forms.parameters import Parameters
from api.forms.requests import Nothing
from api.services import Services
from api.web.rendering import allowed_scopes, page

View = Callable[[Services, Any], Response]


def readable(name: str, path: str, view: View, *parameters: type[Parameters]) -> Endpoint:
    """Return the endpoint of a page; a request without a key that may read gets the form for a key instead.

    A browser cannot send a key with an address, so the page that asks for the key is open. It shows nothing stored.
    """

    def answer(services: Services, params: Parameters) -> Response:
        if Scope.READ in allowed_scopes(services.settings):
            return view(services, params)
        return page(services, "key.html", status=401 if "Authorization" in request.headers else 200)

    return Endpoint(
        name=f"web.{name}",
        path=path,
        scope=None,
        methods=("GET",),
        view=answer,
        parameters=parameters or (Nothing,),
        is_page=True,
    )


def form(name: str, path: str, view: View, *parameters: type[Parameters], scope: Scope, images: int = 0) -> Endpoint:
    """Return the endpoint that a page's form is sent to."""
    return Endpoint(
        name=f"web.{name}",
        path=path,
        scope=scope,
        methods=("POST",),
        view=view,
        parameters=parameters or (Nothing,),
        images=images,
        is_page=True,
    )
