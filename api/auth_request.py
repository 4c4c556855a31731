"""`/_authorize`: a proxy asks whether a request is allowed before it reads the body (nginx's `auth_request`).

The proxy describes the request in `X-Original-Method` and `X-Original-URI`, and passes its `Authorization` on. An
allowed request gets a 204, any other the 401 or 403 of its endpoint. nginx drops the body of that reply, so the body is
in `X-Match-Reply` as well, as one line of ASCII.

It reveals no more than the request itself would, and each endpoint checks the key again.
"""

from collections.abc import Callable, Mapping
from urllib.parse import unquote

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect, Rule

from api.access.authorization import AccessDenied
from api.access.keys import Scope
from api.envelope import fail_with
from common.errors import InputError

# Not counted by the rate limits: the request itself is.
NAME = "authorize"


def add_auth_request(app: Flask, scopes: Mapping[str, Scope | None], *, check: Callable[[Scope | None], None]) -> None:
    """Add the path; `scopes` are the endpoints' by name, and `check` raises unless the request's key has one."""

    def authorize() -> Response:
        if rule := _rule(app.url_map):
            # The reply names the endpoint that was requested.
            request.url_rule = rule
            try:
                check(scopes[rule.endpoint])
            except AccessDenied as error:
                response = fail_with(error)
                response.headers["X-Match-Reply"] = response.get_data(as_text=True).strip()
                return response
        return Response(status=204)

    app.add_url_rule("/_authorize", endpoint=NAME, view_func=authorize, methods=["GET"])


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
