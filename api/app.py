"""The Flask app, built around services that the composition root opens."""

import logging
import re
import secrets
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from api import routes, web
from api.access.authorization import Access
from api.access.cors import Cors
from api.access.headers import SECURITY
from api.access.keys import Keyring
from api.auth_request import NAME, add_auth_request
from api.endpoints import bind
from api.envelope import fail, fail_with, fail_with_http
from api.errors import INTERNAL_STATUS
from api.forms.reading import StrictRequest
from api.other_sites import Sites
from api.rate_limits import RateLimiter
from api.routes import docs
from api.services import Services
from api.telemetry import Telemetry
from common.errors import MatchError

log = logging.getLogger(__name__)

# The ids that a client may choose; other texts could forge lines of a log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class SyncFlask(Flask):
    """Flask without coroutines. No view is one, and the check for them is a tenth of the calls of a /ping."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function."""
        return func


class PlainResponse(Response):
    """A response whose headers are sent unchanged.

    Werkzeug copies the headers and converts Location from an IRI, which takes 3 % of an add's CPU. The headers of this
    API are ASCII, and every response except a stream has a Content-Length already.
    """

    def get_wsgi_headers(self, environ: object) -> Headers:  # noqa: ARG002 - the framework's interface
        """Return the headers."""
        return self.headers


def create_app(services: Services, *, keyring: Keyring | None = None, rate_limiter: RateLimiter | None = None) -> Flask:
    """Return the app. Without a keyring every request is allowed; without a rate limiter no rate is limited."""
    app = SyncFlask("match", static_folder=None)
    # Flask's own reply to OPTIONS has no envelope. Without it, the method is a 405 like any other.
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.request_class, app.response_class = StrictRequest, PlainResponse
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    app.url_map.strict_slashes = False
    app.url_map.redirect_defaults = False
    # A path with // is a 404: Werkzeug's redirect to the merged path has no envelope.
    app.url_map.merge_slashes = False
    if proxies := services.settings.trusted_proxies:
        # Only the entries of X-Forwarded-For that trusted proxies added; a client can forge the others.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=0)  # type: ignore[method-assign]
    access, cors = Access(keyring), Cors(services.settings.cors_origins)
    endpoints = (*routes.ENDPOINTS, *docs.endpoints(routes.SUBJECTS, services.settings), *web.ENDPOINTS)
    bind(app, services, endpoints, check=access.check)
    scopes = {endpoint.name: endpoint.scope for endpoint in endpoints}
    add_auth_request(app, {**scopes, NAME: None}, access)
    app.before_request(_set_request_id)
    Telemetry(services.metrics, services.usage).init_app(app)
    app.before_request(_require_host)
    app.before_request(cors.answer)
    app.before_request(access.identify)
    if keyring is None:
        sites = Sites(endpoints, origins=services.settings.cors_origins, hosts=services.settings.own_hosts)
        app.before_request(sites.check)
    if rate_limiter is not None:
        exempt = {NAME, *(endpoint.name for endpoint in endpoints if not endpoint.is_rate_limited)}
        rate_limiter.init_app(app, exempt=exempt)
    app.after_request(_add_headers)
    app.after_request(cors.mark)
    handlers: dict[type[Exception], Callable[[Any], Response]] = {
        MatchError: _handle_error,
        HTTPException: fail_with_http,
        Exception: _handle_unexpected,
    }
    for kind, handler in handlers.items():
        app.register_error_handler(kind, handler)
    web.init_app(app, services, handlers)
    return app


def _set_request_id() -> None:
    proposed = request.headers.get("X-Request-ID", "")
    g.request_id = proposed if REQUEST_ID.fullmatch(proposed) else secrets.token_hex(16)


def _require_host() -> Response | None:
    """Refuse a request of HTTP/1.1 without a Host header (RFC 9112, 3.2)."""
    if "HTTP_HOST" in request.environ or request.environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        return None
    return fail("bad_request", "HTTP/1.1 requires the header Host", field="Host")


def _add_headers(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    # The pages have their own policy. `setdefault` for each header takes three times as long.
    existing = set(response.headers.keys(lower=True))
    response.headers.extend({name: value for name, value in SECURITY.items() if name.lower() not in existing})
    return response


def _handle_error(error: MatchError) -> Response:
    response = fail_with(error)
    status = response.status_code
    if status >= INTERNAL_STATUS:
        has_traceback = status == INTERNAL_STATUS
        log.warning("request %s: %s: %s", g.request_id, type(error).__name__, error, exc_info=has_traceback)
    return response


def _handle_unexpected(error: Exception) -> Response:
    log.error("request %s failed", g.request_id, exc_info=error)
    return fail("internal_error")
