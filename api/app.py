"""create_app: the Flask app around services that somebody else has opened."""

import logging
import re
import secrets

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from api import docs_routes, routes
from api.access import Access
from api.endpoints import bind
from api.envelope import INTERNAL, fail, fail_with, fail_with_http
from api.keys import Keyring
from api.reading import StrictRequest
from api.services import Services
from api.telemetry import Telemetry
from common.errors import MatchError

log = logging.getLogger(__name__)

# What a caller may choose: anything else could forge lines in a log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def create_app(services: Services, *, keyring: Keyring | None = None) -> Flask:
    """Return the app; nothing is opened here. Without a keyring it is open to all."""
    app = Flask("match", static_folder=None)
    # Its answer would be none of ours; a method that a path does not take is told as such.
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.request_class = StrictRequest
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    app.url_map.strict_slashes = False
    app.url_map.redirect_defaults = False
    # Else a path with // would be answered by a redirect that is no reply of ours.
    app.url_map.merge_slashes = False
    access = Access(keyring)
    bind(app, services, routes.ENDPOINTS, check=access.check)
    bind(app, services, docs_routes.endpoints(routes.SUBJECTS, services.settings), check=access.check)
    app.before_request(_name_request)
    Telemetry(services.metrics, services.tracing).follow(app)
    app.before_request(access.identify)
    app.after_request(_mark)
    app.register_error_handler(MatchError, _fail_with)
    app.register_error_handler(HTTPException, fail_with_http)
    app.register_error_handler(Exception, _fail_inside)
    return app


def _name_request() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _mark(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
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
    return fail(500, INTERNAL, code="internal_error")
