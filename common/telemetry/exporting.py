"""Export of spans by OpenTelemetry's SDK, an optional extra; secrets are redacted first."""

import atexit
from collections.abc import Mapping, Sequence
from threading import Thread

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status
from opentelemetry.util.types import AttributeValue

from common.config import Settings
from common.telemetry.redaction import Redactor, secrets_of

TRACES_PATH = "/v1/traces"
# An unavailable collector must not delay the end of a process.
CLOSE_WITHIN_S = 3.0


def start(endpoint: str, *, service: str, settings: Settings) -> None:
    """Send the spans of this process to the collector by OTLP over HTTP; at exit, wait up to CLOSE_WITHIN_S for it."""
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence.
    resource = Resource.create({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    url = endpoint if endpoint.endswith(TRACES_PATH) else endpoint.rstrip("/") + TRACES_PATH
    exporter = RedactingExporter(OTLPSpanExporter(endpoint=url), Redactor(secrets_of(settings)))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    atexit.register(_close, provider)


def _close(provider: TracerProvider) -> None:
    closing = Thread(target=provider.shutdown, daemon=True)
    closing.start()
    closing.join(CLOSE_WITHIN_S)


class RedactingExporter(SpanExporter):
    """Exports redacted copies of spans by another exporter; a span processor cannot change an ended span."""

    def __init__(self, exporter: SpanExporter, redactor: Redactor) -> None:
        self._exporter = exporter
        self._redactor = redactor

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export redacted copies."""
        return self._exporter.export([self._redact(span) for span in spans])

    def shutdown(self) -> None:
        """Shut the other exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the other exporter."""
        return self._exporter.force_flush(timeout_millis)

    def _redact(self, span: ReadableSpan) -> ReadableSpan:
        return ReadableSpan(
            name=self._redactor.redact(span.name),
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=self._attributes(span.attributes),
            events=[Event(event.name, self._attributes(event.attributes), event.timestamp) for event in span.events],
            links=[Link(link.context, self._attributes(link.attributes)) for link in span.links],
            kind=span.kind,
            status=Status(span.status.status_code, self._redactor.redact(span.status.description)),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def _attributes(self, attributes: Mapping[str, AttributeValue] | None) -> dict[str, AttributeValue]:
        return {name: self._redactor.redact(value) for name, value in (attributes or {}).items()}
