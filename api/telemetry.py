"""What is told of each request: a line of the log, its count and time, and a span where traces are collected."""

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from time import perf_counter

from flask import Flask, Request, Response, g, request

from api.metrics import METHODS, Metrics
from common.telemetry.logs import bound
from common.telemetry.tracing import NO_SPAN, OFF, SERVER, Span, Tracing, trace_id

log = logging.getLogger(__name__)

# Asked every few seconds by machines, and by a proxy before each request: a line each would hide the others.
QUIET = frozenset({"livez", "readyz", "ping", "metrics", "authorize"})


@dataclass(slots=True)
class _Told:
    """A request on its way, and what is to be undone when it is answered."""

    method: str
    path: str
    endpoint: str | None
    request_id: str
    began: float = field(default_factory=perf_counter)
    held: ExitStack = field(default_factory=ExitStack)
    span: Span = NO_SPAN
    key: str | None = None
    status: int = 0
    sent: int = 0


class Telemetry:
    """Follows requests from `begin`, which is called once they have an id, to the last byte of their reply."""

    def __init__(self, metrics: Metrics, tracing: Tracing) -> None:
        self._metrics = metrics
        self._tracing = tracing

    def follow(self, app: Flask) -> None:
        """Follow the app's requests; what is registered before this gives them their id."""
        app.before_request(self._begin)
        app.after_request(self._answered)

    def _begin(self) -> None:
        asked = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - the documented way
        told = _Told(asked.method, asked.path, asked.endpoint, g.request_id)
        if self._tracing is not OFF:
            told.span = told.held.enter_context(self._span(asked, told))
        trace = trace_id(told.span.traceparent)
        told.held.enter_context(bound(request_id=told.request_id, trace_id=trace))
        g.told = told

    def _span(self, asked: Request, told: _Told) -> AbstractContextManager[Span]:
        route = asked.url_rule.rule if asked.url_rule else ""
        # Spans are counted by their names: a method that nobody knows is none of them.
        method = told.method if told.method in METHODS else "HTTP"
        return self._tracing.span(
            f"{method} {route}".rstrip(),
            kind=SERVER,
            parent=asked.headers.get("traceparent", ""),
            about={"http.request.method": method, "http.route": route, "match.request_id": told.request_id},
        )

    def _answered(self, response: Response) -> Response:
        told: _Told | None = g.get("told")
        if told is None:
            return response
        told.status = response.status_code
        # The name alone, and only of a key that is known.
        told.key = getattr(g.get("key"), "name", None)
        if response.is_streamed:
            response.response = _counted(response.iter_encoded(), told)
        elif told.method != "HEAD":
            told.sent = response.calculate_content_length() or 0
        response.call_on_close(lambda: self._end(told))
        return response

    def _end(self, told: _Told) -> None:
        seconds = perf_counter() - told.began
        self._metrics.observe(method=told.method, endpoint=told.endpoint, status=told.status, seconds=seconds)
        quiet = told.endpoint in QUIET and told.status < 400  # noqa: PLR2004 - an HTTP status
        _log(told, seconds, logging.DEBUG if quiet else logging.INFO)
        told.span.note(**{"http.response.status_code": told.status})
        if told.status >= 500:  # noqa: PLR2004 - an HTTP status
            told.span.fail(f"HTTP {told.status}")
        told.held.close()


def _log(told: _Told, seconds: float, level: int) -> None:
    if not log.isEnabledFor(level):
        return
    about = {
        "method": told.method,
        "path": told.path,
        "endpoint": told.endpoint,
        "status": told.status,
        "duration_ms": round(1000 * seconds, 1),
        "bytes": told.sent,
        "key": told.key,
    }
    log.log(
        level,
        "%s %s %d",
        told.method,
        told.path,
        told.status,
        extra={name: value for name, value in about.items() if value is not None},
    )


def _counted(parts: Iterable[bytes], told: _Told) -> Iterator[bytes]:
    """Pass the parts on, and count their bytes; closed early, it closes what they come from."""
    with closing(parts) if isinstance(parts, Generator) else nullcontext():
        for part in parts:
            told.sent += len(part)
            yield part
