"""`/auth`: a proxy asks whether a request is allowed before it reads the request's body (nginx's `auth_request`).

The proxy describes the request in `X-Original-Method` and `X-Original-URI`, and passes its `Authorization` on. An
allowed request gets a 204, any other the 401 or 403 of its endpoint. nginx passes on the status of that reply only, so
it fetches the whole one from `/auth/refused` and sends it to the client.

Both paths reveal no more than the request itself would, and each endpoint checks the key again.
"""

from collections.abc import Callable, Mapping
from urllib.parse import unquote

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect, Rule

from api.access.keys import Scope
from common.errors import InputError, Overloaded

# Not counted by the rate limits: the request itself is. A refused request is counted at /auth/refused.
NAME = "auth"
REFUSED = "auth_refused"


def add_auth_request(app: Flask, scopes: Mapping[str, Scope | None], *, check: Callable[[Scope | None], None]) -> None:
    """Add both paths; `scopes` are the endpoints' by name, and `check` raises unless the request's key has one."""

    def auth() -> Response:
        if rule := _rule(app.url_map):
            # The reply names the endpoint that was requested.
            request.url_rule = rule
            check(scopes[rule.endpoint])
        return Response(status=204)

    def refused() -> Response:
        auth()
        # Another process has read the keys file since.
        raise Overloaded("the API key became valid a moment ago, retry", retry_after=1)

    app.add_url_rule("/auth", endpoint=NAME, view_func=auth, methods=["GET"])
    app.add_url_rule("/auth/refused", endpoint=REFUSED, view_func=refused, methods=["GET"])


def _rule(paths: Map) -> Rule | None:
    """Return the rule that the original request matches; None is open: its reply is a 404 or a 405."""
    method, path = _header("X-Original-Method"), _header("X-Original-URI").partition("?")[0]
    try:
        rule, _ = paths.bind("").match(unquote(path), method=method, return_rule=True)
    except (HTTPException, RequestRedirect):
        return None
    return rule


def _header(name: str) -> str:
    try:
        return request.headers[name]
    except KeyError:
        raise InputError(f"{name} is required", field=name, code="missing_parameter") from None
