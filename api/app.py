"""create_app: the Flask app around services that somebody else has opened."""

import logging
import re
import secrets
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from api import routes
from api.access.authorization import Access
from api.access.cors import Cors
from api.access.headers import SECURITY
from api.access.keys import Keyring
from api.auth_request import NAME, add_auth_request
from api.endpoints import bind
from api.envelope import fail, fail_with, fail_with_http
from api.forms.reading import StrictRequest
from api.rates import Rates
from api.routes import docs
from api.services import Services
from api.telemetry import Telemetry
from common.errors import MatchError

log = logging.getLogger(__name__)

# What a caller may choose: anything else could forge lines in a log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class PlainFlask(Flask):
    """Flask without coroutines, of which we have none: to look for them is a tenth of the calls of a /ping."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function."""
        return func


class PlainResponse(Response):
    """A response whose headers go out as they are.

    The framework's own copies them one by one and reads Location as a URL in any script: 3 % of an add's CPU. Ours are
    ASCII, and what is no stream has its length already.
    """

    def get_wsgi_headers(self, environ: object) -> Headers:  # noqa: ARG002 - the framework's interface
        """Return the headers."""
        return self.headers


def create_app(services: Services, *, keyring: Keyring | None = None, rates: Rates | None = None) -> Flask:
    """Return the app; nothing is opened here. Without a keyring it is open to all, and without rates at any rate."""
    app = PlainFlask("match", static_folder=None)
    # Its answer would be none of ours; a method that a path does not take is told as such.
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.request_class, app.response_class = StrictRequest, PlainResponse
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    app.url_map.strict_slashes = False
    app.url_map.redirect_defaults = False
    # Else a path with // would be answered by a redirect that is no reply of ours.
    app.url_map.merge_slashes = False
    if proxies := services.settings.trusted_proxies:
        # Of what a client says of others, only what these have added.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=0)  # type: ignore[method-assign]
    access, cors = Access(keyring), Cors(services.settings.cors_origins)
    endpoints = (*routes.ENDPOINTS, *docs.endpoints(routes.SUBJECTS, services.settings))
    bind(app, services, endpoints, check=access.check)
    scopes = {endpoint.name: endpoint.scope for endpoint in endpoints}
    add_auth_request(app, {**scopes, NAME: None}, check=access.check)
    app.before_request(_name_request)
    Telemetry(services.metrics).follow(app)
    app.before_request(cors.answer)
    app.before_request(access.identify)
    if rates is not None:
        rates.follow(app, free={NAME, *(endpoint.name for endpoint in endpoints if not endpoint.limited)})
    app.after_request(_mark)
    app.after_request(cors.mark)
    app.register_error_handler(MatchError, _fail_with)
    app.register_error_handler(HTTPException, fail_with_http)
    app.register_error_handler(Exception, _fail_inside)
    return app


def _name_request() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _mark(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    # The page of the documentation has a policy of its own. To ask for each by `setdefault` takes three times as long.
    there = set(response.headers.keys(lower=True))
    response.headers.extend({name: value for name, value in SECURITY.items() if name.lower() not in there})
    return response


def _fail_with(error: MatchError) -> Response:
    response = fail_with(error)
    if response.status_code >= 500:  # noqa: PLR2004 - an HTTP status
        log.warning("request %s: %s: %s", g.request_id, type(error).__name__, error, exc_info=_is_fault(response))
    return response


def _is_fault(response: Response) -> bool:
    return response.status_code == 500  # noqa: PLR2004 - an HTTP status


def _fail_inside(error: Exception) -> Response:
    log.error("request %s broke", g.request_id, exc_info=error)
    return fail("internal_error")
