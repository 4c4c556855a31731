"""Tracing with OpenTelemetry, whose API does nothing until `configure` has installed its SDK.

Code creates spans with `trace.get_tracer(__name__)`. A W3C `traceparent`, in a header of a request or a field of a
task, identifies the parent span in another process.
"""

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

from opentelemetry.context import Context
from opentelemetry.trace import Span, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from common.config import Settings
from common.errors import ConfigError

TRACEPARENT = "traceparent"
# Not the global propagator: a task stores only a traceparent, and baggage of clients is not forwarded.
_propagator = TraceContextTextMapPropagator()


def check(endpoint: str | None) -> None:
    """Raise ConfigError if traces are to be exported and the SDK is not installed."""
    if endpoint is not None and (find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None):
        raise ConfigError("MATCH_TRACING_ENDPOINT needs OpenTelemetry: pip install -r requirements/tracing.txt")


def configure(settings: Settings, *, service: str) -> None:
    """Export this process's spans to MATCH_TRACING_ENDPOINT, if it is set, under the service's name."""
    if settings.tracing_endpoint is not None:
        from common.telemetry import exporting  # noqa: PLC0415 - the SDK is an optional extra

        exporting.start(settings.tracing_endpoint, service=service, settings=settings)


def extract(traceparent: str) -> Context:
    """Return the context for children of this span; for an invalid traceparent an empty context."""
    return _propagator.extract({TRACEPARENT: traceparent}, Context())


def inject() -> str:
    """Return the traceparent of the current span, empty without a trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get(TRACEPARENT, "")


def active(span: Span) -> AbstractContextManager[Span]:
    """Make the span current inside the `with`, then end it; without a trace, avoid the cost of `use_span`."""
    return use_span(span, end_on_exit=True) if span.get_span_context().is_valid else nullcontext(span)
