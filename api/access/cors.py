"""What pages of other origins may do: nothing, save for those that MATCH_CORS_ORIGINS names.

A page shows its key itself, as a header; no cookie and no login of the browser's own is ever asked for, and so none is
allowed.
"""

from collections.abc import Collection

from flask import Response, request
from werkzeug.exceptions import MethodNotAllowed

MAY_SEND = "Authorization, Content-Type, Idempotency-Key, Prefer, X-Request-ID"
MAY_READ = "Idempotency-Replayed, Location, Retry-After, X-Request-ID"
# Before a browser asks again.
KEEPS_S = 600


class Cors:
    """Answers browsers that ask on behalf of pages of these origins, each as a browser writes it."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def answer(self) -> Response | None:
        """Return the answer to a browser that asks before it sends a request of a page; None for all other requests."""
        error = request.routing_exception
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not asks or not self._is_known() or not isinstance(error, MethodNotAllowed):
            return None
        return Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": ", ".join(sorted(error.valid_methods or ())),
                "Access-Control-Allow-Headers": MAY_SEND,
                "Access-Control-Max-Age": f"{KEEPS_S}",
            },
        )

    def mark(self, response: Response) -> Response:
        """Tell the browser whether the page may read the reply."""
        if self._origins:
            response.vary.add("Origin")
        if self._is_known():
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = MAY_READ
        return response

    def _is_known(self) -> bool:
        return request.headers.get("Origin") in self._origins
