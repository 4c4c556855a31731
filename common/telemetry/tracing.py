"""Traces: what a picture's way from its request into the store took, for those who collect that.

A span is the time that one step takes; those that belong together have one trace. Inside its `with` a span is its
thread's current one, and the spans begun there are its children. Between processes and threads a span is named by its
`traceparent` (W3C Trace Context): a header, a field of the task.

    with tracing.span("download", host=host):
        ...

Without a collector nothing of this happens, and OpenTelemetry, an optional extra, is not even imported.
"""

import atexit
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from threading import Thread
from types import TracebackType
from typing import Any, Protocol, Self

from common.errors import ConfigError
from common.telemetry.redaction import redact_urls

SERVER, PRODUCER, CONSUMER, INTERNAL = "SERVER", "PRODUCER", "CONSUMER", "INTERNAL"

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
TRACES_PATH = "/v1/traces"
# A collector that is away must not hold up the end of a process.
CLOSE_WITHIN_S = 3.0

Value = str | int | float


class Span(Protocol):
    """One step, while it goes on."""

    @property
    def traceparent(self) -> str:
        """The span's name for others; empty where nothing is traced."""

    def note(self, **attributes: Value) -> None:
        """Add what is known of the step by now."""

    def fail(self, reason: str) -> None:
        """Mark the step as failed."""


class Tracing(Protocol):
    """Where the spans of a process go."""

    def span(
        self,
        name: str,
        *,
        kind: str = INTERNAL,
        parent: str = "",
        links: Sequence[str] = (),
        about: Mapping[str, Value] | None = None,
    ) -> AbstractContextManager[Span]:
        """Return a span that lasts as long as its `with`.

        `parent` and `links` are traceparents; one that cannot be read counts as none, and without a parent the
        thread's current span is it. Queries and userinfo of URLs are taken out of what it is `about`.
        """

    def current(self) -> str:
        """Return the traceparent of this thread's current span, empty where there is none."""


class _Nothing:
    """No span, and no place for any."""

    traceparent = ""

    def note(self, **attributes: Value) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass

    def span(self, name: str, **options: Any) -> Self:  # noqa: ANN401 - nothing is done with them
        del name, options
        return self

    def current(self) -> str:
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


OFF: Tracing = _Nothing()
NO_SPAN: Span = _Nothing()


def check(endpoint: str | None) -> None:
    """Raise ConfigError when traces are wanted and what makes them is not installed."""
    if endpoint is not None and (find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None):
        raise ConfigError("MATCH_TRACING_ENDPOINT needs OpenTelemetry: pip install -r requirements/tracing.txt")


def open_tracing(endpoint: str | None, *, service: str) -> Tracing:
    """Return where spans go: to the collector at `endpoint` under the name of this service, or nowhere.

    What is known at the end of the process is sent then, as far as that takes no longer than CLOSE_WITHIN_S.
    """
    if endpoint is None:
        return OFF
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create()
    # OTEL_SERVICE_NAME goes before ours.
    if str(resource.attributes.get(SERVICE_NAME, "unknown")).startswith("unknown"):
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    url = endpoint if endpoint.endswith(TRACES_PATH) else endpoint.rstrip("/") + TRACES_PATH
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    atexit.register(_close, provider)
    return OpenTelemetry(provider)


def _close(provider: Any) -> None:  # noqa: ANN401 - its type is in the extra
    closing = Thread(target=provider.shutdown, daemon=True)
    closing.start()
    closing.join(CLOSE_WITHIN_S)


class _Recorded:
    def __init__(self, span: Any) -> None:  # noqa: ANN401 - its type is in the extra
        self._span = span

    @property
    def traceparent(self) -> str:
        return _traceparent(self._span.get_span_context())

    def note(self, **attributes: Value) -> None:
        self._span.set_attributes(_clean(attributes))

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an extra

        self._span.set_status(StatusCode.ERROR, redact_urls(reason))


class OpenTelemetry:
    """Spans by OpenTelemetry's SDK, made with the provider given."""

    def __init__(self, provider: Any) -> None:  # noqa: ANN401 - its type is in the extra
        self._tracer = provider.get_tracer("match")

    @contextmanager
    def span(
        self,
        name: str,
        *,
        kind: str = INTERNAL,
        parent: str = "",
        links: Sequence[str] = (),
        about: Mapping[str, Value] | None = None,
    ) -> Iterator[Span]:
        """Record a span; what ends it with an exception is told by its class alone, since its text may hold a URL."""
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        above = _context(parent)
        with self._tracer.start_as_current_span(
            name,
            context=None if above is None else trace.set_span_in_context(trace.NonRecordingSpan(above)),
            kind=trace.SpanKind[kind],
            attributes=_clean(about or {}),
            links=[trace.Link(context) for link in links if (context := _context(link)) is not None],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            recorded = _Recorded(span)
            try:
                yield recorded
            except Exception as error:
                recorded.fail(type(error).__name__)
                raise

    def current(self) -> str:
        """Return the traceparent of this thread's current span, empty where there is none."""
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        return _traceparent(trace.get_current_span().get_span_context())


def trace_id(traceparent: str) -> str:
    """Return the id of the trace; empty for none."""
    return traceparent[3:35]


def _context(traceparent: str) -> Any:  # noqa: ANN401 - its type is in the extra
    """Return what a traceparent names, None where it is none."""
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - an extra

    if not TRACEPARENT.fullmatch(traceparent):
        return None
    _, trace, span, flags = traceparent.split("-")
    return SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16) & 1))


def _traceparent(context: Any) -> str:  # noqa: ANN401 - its type is in the extra
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _clean(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {name: redact_urls(value) if isinstance(value, str) else value for name, value in attributes.items()}
