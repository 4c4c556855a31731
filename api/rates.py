"""Rate limits: how many requests a key may send, or an address without one; counted in Redis by all processes.

A Redis that is away turns nobody away: each process then counts for itself, and asks now and then whether Redis is
back.
"""

import ipaddress
from collections.abc import Collection
from math import ceil
from time import time

from flask import Flask, Response, g, request
from flask_limiter import Limiter, RateLimitExceeded
from redis import Redis
from redis.exceptions import RedisError

from api.envelope import fail
from common.queue.keys import RATES

# Longer than a Redis on the same network ever takes, and short enough to wait for in vain.
ANSWER_WITHIN_S = 0.25
# Whoever has one IPv6 address has as many as this network.
IPV6_BITS = 64


class Rates:
    """Holds requests to limits such as `100/second;5000/hour`, all of which hold at once."""

    def __init__(self, limits: str, redis: Redis) -> None:
        self._limiter = Limiter(
            sender,
            application_limits=[limits],
            strategy="sliding-window-counter",
            storage_uri="redis://",
            storage_options={"connection_pool": redis.connection_pool, "key_prefix": RATES},  # type: ignore[dict-item]  # they are passed on as they are
            in_memory_fallback_enabled=True,
        )

    def follow(self, app: Flask, *, free: Collection[str]) -> None:
        """Count the app's requests, save those of the endpoints that are free; keys must be known before."""
        self._limiter.request_filter(lambda: request.endpoint in free)
        self._limiter.init_app(app)
        app.register_error_handler(RateLimitExceeded, self._refuse)

    def _refuse(self, error: RateLimitExceeded) -> Response:
        response = fail("too_many_requests", f"too many requests: at most {error.limit.limit}")
        response.headers["Retry-After"] = f"{self._again_after_s()}"
        return response

    def _again_after_s(self) -> int:
        limit = self._limiter.current_limit
        try:
            return max(1, ceil(limit.reset_at - time())) if limit else 1
        except RedisError:
            return 1


def sender() -> str:
    """Return by whom a request is counted: its key's name, else its address, of IPv6 the network."""
    if g.get("key") is not None:
        return f"key:{g.key.name}"
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return "address:unknown"
    if address.version == 4:  # noqa: PLR2004 - the Internet Protocol's
        return f"address:{address}"
    return f"address:{ipaddress.ip_network((int(address), IPV6_BITS), strict=False)}"
