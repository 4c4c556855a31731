"""CORS: pages of other origins have access only if MATCH_CORS_ORIGINS lists their origin.

A page sends its API key in a header. Cookies and other credentials of the browser are not used and not allowed.
"""

from collections.abc import Collection

from flask import Response, request
from werkzeug.exceptions import MethodNotAllowed

ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, Prefer, X-Request-ID"
EXPOSED_HEADERS = "Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
MAX_AGE_S = 600


class Cors:
    """Answers preflight requests and marks replies for these origins, each in a browser's notation."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def answer(self) -> Response | None:
        """Return the reply to a preflight request of an allowed origin; None for any other request."""
        error = request.routing_exception
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not is_preflight or not self._is_allowed() or not isinstance(error, MethodNotAllowed):
            return None
        return Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": ", ".join(sorted(error.valid_methods or ())),
                "Access-Control-Allow-Headers": ALLOWED_HEADERS,
                "Access-Control-Max-Age": f"{MAX_AGE_S}",
            },
        )

    def mark(self, response: Response) -> Response:
        """Add the headers by which a page of an allowed origin can read the reply."""
        if self._origins:
            response.vary.add("Origin")
        if self._is_allowed():
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
        return response

    def _is_allowed(self) -> bool:
        return request.headers.get("Origin") in self._origins
