"""Errors of the pages' endpoints: the API's replies, as pages."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Flask, Response, g

from api.services import Services
from api.web.rendering import page

# Flask looks up the error handlers of an endpoint `web.…` in the blueprint `web`.
BLUEPRINT = "web"
# Headers of a failed reply that a browser or its page needs.
HEADERS = ("WWW-Authenticate", "Retry-After")

Handler = Callable[[Any], Response]


def init_app(app: Flask, services: Services, handlers: Mapping[type[Exception], Handler]) -> None:
    """Show the errors as pages; `handlers` are the API's own, which also log what the service is to blame for."""
    blueprint = Blueprint(BLUEPRINT, __name__)
    for kind, handler in handlers.items():
        blueprint.register_error_handler(kind, _as_page(services, handler))
    app.register_blueprint(blueprint)


def _as_page(services: Services, handler: Handler) -> Handler:
    def show(error: Exception) -> Response:
        reply = handler(error)
        failure = reply.get_json()
        code = failure["code"]
        # The links of the page are those of the default collection, which may be another one that is not allowed.
        g.pop("collection", None)
        shown = page(services, "failure.html", status=reply.status_code, texts=failure["error"], code=code)
        shown.headers.extend({name: reply.headers[name] for name in HEADERS if name in reply.headers})
        return shown

    return show
