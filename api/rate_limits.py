"""Rate limits by API key, or by address for a request without a key; counted in Redis for all processes.

Replies to counted requests have the fields `RateLimit-Policy`, with all limits, and `RateLimit`, with what is left of
each (draft-ietf-httpapi-ratelimit-headers-10).

While Redis is unavailable no request is rejected for that: each process counts its own requests, and tries Redis again
from time to time.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from math import ceil
from time import time

from flask import Flask, Response, g, request
from flask_limiter import Limiter, RateLimitExceeded, RequestLimit
from redis import Redis
from redis.exceptions import RedisError

from api.envelope import fail
from common.queue.keys import RATES

# More than a Redis on the same network takes, and little enough for requests to wait when it does not answer.
ANSWER_WITHIN_S = 0.25
# One customer of a network provider usually has a whole network of this size, so its addresses share a limit.
IPV6_BITS = 64
UNMATCHED = "unmatched"
PERIODS_S: Mapping[str, int] = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
# A forwarded address with its port, which some proxies add.
_WITH_PORT = re.compile(r"\[(?P<ipv6>[0-9a-fA-F:.]+)\](:[0-9]+)?|(?P<ipv4>[0-9.]+):[0-9]+")


class RateLimiter:
    """Enforces limits such as `100/second;5000/hour`, all of them at once."""

    def __init__(self, limits: str, redis: Redis) -> None:
        self._policy = _policy(limits)
        self._limiter = Limiter(
            client_of_request,
            application_limits=[limits],
            # A path of no endpoint counts too: by default it would not.
            request_identifier=lambda: request.endpoint or UNMATCHED,
            strategy="sliding-window-counter",
            storage_uri="redis://",
            storage_options={"connection_pool": redis.connection_pool, "key_prefix": RATES},  # type: ignore[dict-item]  # any option of the storage is accepted
            in_memory_fallback_enabled=True,
        )

    def init_app(self, app: Flask, *, exempt: Collection[str]) -> None:
        """Count the app's requests, except those of `exempt` endpoints; earlier handlers must set `g.key`."""
        self._limiter.request_filter(lambda: request.endpoint in exempt)
        self._limiter.init_app(app)
        app.register_error_handler(RateLimitExceeded, self._reject)
        app.after_request(self._add_fields)

    def _add_fields(self, response: Response) -> Response:
        limits = self._limiter.current_limits
        if limits:
            response.headers["RateLimit-Policy"] = self._policy
            # While Redis does not answer, the number of requests that are left is not known.
            with suppress(RedisError):
                response.headers["RateLimit"] = _left(limits)
        return response

    def _reject(self, error: RateLimitExceeded) -> Response:
        response = fail("too_many_requests", f"too many requests: at most {error.limit.limit}")
        response.headers["Retry-After"] = f"{self._retry_after_s()}"
        return response

    def _retry_after_s(self) -> int:
        limit = self._limiter.current_limit
        try:
            return _seconds_until(limit.reset_at) if limit else 1
        except RedisError:
            return 1


def _policy(limits: str) -> str:
    """Return the field `RateLimit-Policy`.

    >>> _policy("100/second;5000/hour")
    '"second";q=100;w=1, "hour";q=5000;w=3600'
    """
    pairs = [limit.strip().split("/") for limit in limits.split(";")]
    # Of two limits for one period the lower is in force.
    quotas = {period: int(amount) for amount, period in sorted(pairs, key=lambda pair: -int(pair[0]))}
    return ", ".join(f'"{period}";q={quotas[period]};w={w}' for period, w in PERIODS_S.items() if period in quotas)


def _left(limits: Sequence[RequestLimit]) -> str:
    """Return the field `RateLimit`: the requests that are left of each limit, and the seconds until more are."""
    by_period = {one.limit.GRANULARITY.name: one for one in sorted(limits, key=lambda one: -one.limit.amount)}
    return ", ".join(
        f'"{period}";r={max(0, one.remaining)};t={_seconds_until(one.reset_at)}' for period, one in by_period.items()
    )


def _seconds_until(reset_at: float) -> int:
    return max(1, ceil(reset_at - time()))


def client_of_request() -> str:
    """Return the client that a request counts for: the name of its API key, else its address or IPv6 network."""
    if g.get("key") is not None:
        return f"key:{g.key.name}"
    try:
        address = ipaddress.ip_address(_without_port(request.remote_addr or ""))
    except ValueError:
        return "address:unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return f"address:{ipaddress.ip_network((int(address), IPV6_BITS), strict=False)}"
    # A server that listens on IPv6 sees IPv4 clients as ::ffff:192.0.2.1.
    return f"address:{getattr(address, 'ipv4_mapped', None) or address}"


def _without_port(address: str) -> str:
    match = _WITH_PORT.fullmatch(address)
    return address if match is None else match["ipv6"] or match["ipv4"]
