"""Telemetry of requests: a log line, metrics and a span for each."""

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from time import perf_counter

from flask import Flask, Response, g, request
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from api.auth_request import NAME as AUTHORIZE
from api.metrics import METHODS, Metrics
from api.usage import UsageRecorder
from common.collection_names import DEFAULT_COLLECTION
from common.queue.usage import Counted, Label
from common.telemetry import tracing
from common.telemetry.logs import bound

log = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)

# Machines send these every few seconds, and a proxy before each request: at level info they would hide the other lines.
QUIET = frozenset({"livez", "readyz", "ping", "metrics", AUTHORIZE})


@dataclass(slots=True)
class _ActiveRequest:
    """A request that is being answered; `contexts` are exited at its end."""

    method: str
    path: str
    endpoint: str | None
    span: Span
    started: float = field(default_factory=perf_counter)
    contexts: ExitStack = field(default_factory=ExitStack)
    key_name: str | None = None
    collection: str | None = None
    collection_exists: bool = False
    status: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    # The counts of the view, by collection and quantity.
    use: Mapping[tuple[str, Counted], int] = field(default_factory=dict)


class Telemetry:
    """Observes each request from the moment it has an id to the last byte of its reply."""

    def __init__(self, metrics: Metrics, usage: UsageRecorder) -> None:
        self._metrics = metrics
        self._usage = usage

    def init_app(self, app: Flask) -> None:
        """Observe the app's requests; handlers registered earlier must give each its `g.request_id`."""
        app.before_request(self._begin)
        app.after_request(self._observe_response)

    def _begin(self) -> None:
        active = _ActiveRequest(request.method, request.path, request.endpoint, _start_span())
        active.contexts.enter_context(tracing.active(active.span))
        active.contexts.enter_context(bound(request_id=g.request_id))
        g.active_request = active

    def _observe_response(self, response: Response) -> Response:
        active: _ActiveRequest | None = g.get("active_request")
        if active is None:
            return response
        active.status = response.status_code
        # Only the name, and only of a known key.
        active.key_name = getattr(g.get("key"), "name", None)
        active.collection = g.get("collection")
        active.collection_exists = g.get("collection_exists", active.collection == DEFAULT_COLLECTION)
        active.bytes_received = request.content_length or 0
        active.use = g.get("use", {})
        if response.is_streamed:
            response.response = _count_bytes(response.iter_encoded(), active)
        elif active.method != "HEAD":
            active.bytes_sent = response.calculate_content_length() or 0
        response.call_on_close(lambda: self._end(active))
        return response

    def _end(self, active: _ActiveRequest) -> None:
        seconds = perf_counter() - active.started
        # A request that the proxy may send is observed itself: counted twice, it would halve the share of errors.
        if active.endpoint != AUTHORIZE or active.status >= 400:  # noqa: PLR2004 - an HTTP status
            self._metrics.observe(method=active.method, endpoint=active.endpoint, status=active.status, seconds=seconds)
        if active.endpoint not in QUIET:
            self._usage.add(_use_of(active))
        quiet = active.endpoint in QUIET and active.status < 400  # noqa: PLR2004 - an HTTP status
        _log(active, seconds, logging.DEBUG if quiet else logging.INFO)
        active.span.set_attribute("http.response.status_code", active.status)
        if active.status >= 500:  # noqa: PLR2004 - an HTTP status
            active.span.set_status(StatusCode.ERROR)
        active.contexts.close()


def _use_of(active: _ActiveRequest) -> dict[tuple[Label, Counted], int]:
    """Return the use of the request.

    A client may name any collection: only one that exists, or in which the request added or searched, is counted.
    """
    is_used = active.collection_exists or any(name == active.collection for name, _ in active.use)
    own = Label(active.key_name, active.collection if is_used and active.status < 400 else None)  # noqa: PLR2004 - an HTTP status
    size = active.bytes_received + active.bytes_sent
    counted = {(Label(active.key_name, name), what): number for (name, what), number in active.use.items() if number}
    return {(own, Counted.REQUESTS): 1, (own, Counted.BYTES): size, **counted}


def _start_span() -> Span:
    route = request.url_rule.rule if request.url_rule else ""
    # OpenTelemetry's name for unknown methods: span names must be few.
    method = request.method if request.method in METHODS else "HTTP"
    return tracer.start_span(
        f"{method} {route}".rstrip(),
        context=tracing.extract(request.headers.get(tracing.TRACEPARENT, "")),
        kind=SpanKind.SERVER,
        attributes={"http.request.method": method, "http.route": route, "match.request_id": g.request_id},
    )


def _log(active: _ActiveRequest, seconds: float, level: int) -> None:
    if not log.isEnabledFor(level):
        return
    fields = {
        "method": active.method,
        "path": active.path,
        "endpoint": active.endpoint,
        "status": active.status,
        "duration_ms": round(1000 * seconds, 1),
        "bytes": active.bytes_sent,
        "key": active.key_name,
        "collection": active.collection,
    }
    log.log(
        level,
        "%s %s %d",
        active.method,
        active.path,
        active.status,
        extra={name: value for name, value in fields.items() if value is not None},
    )


def _count_bytes(chunks: Iterable[bytes], active: _ActiveRequest) -> Iterator[bytes]:
    """Yield the chunks and count their bytes; when closed early, close their generator."""
    with closing(chunks) if isinstance(chunks, Generator) else nullcontext():
        for chunk in chunks:
            active.bytes_sent += len(chunk)
            yield chunk
