"""`/_authorize`: a proxy asks whether a request is allowed before it reads the body (nginx's `auth_request`).

The proxy describes the request in `X-Original-Method` and `X-Original-URI`, and passes its `Authorization` on. An
allowed request gets a 204, any other the 401 or 403 of its endpoint. nginx drops the body of that reply, so the body is
in `X-Match-Reply` as well, as one line of ASCII.

A request that matches no endpoint needs a valid key too. nginx and Flask do not read every path alike, and nginx would
read a large body for a path that only it takes for an endpoint's.

It reveals no more than the request itself would, and each endpoint checks the key again.
"""

from collections.abc import Mapping
from urllib.parse import unquote

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect, Rule

from api.access.authorization import Access, AccessDenied
from api.access.keys import Scope
from api.envelope import fail_with
from common.errors import InputError

# Not counted by the rate limits: an allowed request is counted itself. The proxy bounds the denied ones.
NAME = "authorize"


def add_auth_request(app: Flask, scopes: Mapping[str, Scope | None], access: Access) -> None:
    """Add the path; `scopes` are the endpoints' by name."""

    def authorize() -> Response:
        method, path = _header("X-Original-Method"), unquote(_header("X-Original-URI").partition("?")[0])
        # The reply names the endpoint, or else the path, that was requested.
        request.url_rule, request.path = _rule(app.url_map, method, path), path
        try:
            if request.url_rule is None:
                access.check_key()
            else:
                access.check(scopes[request.url_rule.endpoint])
        except AccessDenied as error:
            response = fail_with(error)
            response.headers["X-Match-Reply"] = response.get_data(as_text=True).strip()
            return response
        return Response(status=204)

    app.add_url_rule("/_authorize", endpoint=NAME, view_func=authorize, methods=["GET"])


def _rule(paths: Map, method: str, path: str) -> Rule | None:
    """Return the rule that the original request matches; None where the reply is a 404 or a 405."""
    try:
        rule, _ = paths.bind("").match(path, method=method, return_rule=True)
    except (HTTPException, RequestRedirect):
        return None
    return rule


def _header(name: str) -> str:
    try:
        return request.headers[name]
    except KeyError:
        raise InputError(f"{name} is required", field=name, code="missing_parameter") from None
