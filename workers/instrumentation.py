"""Metrics, spans and log fields of a worker's tasks."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from wsgiref.simple_server import WSGIServer

import prometheus_client
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from common.decoding.process import ProcessEnd
from common.queue.tasks import Claim, State
from common.telemetry import tracing
from common.telemetry.logs import bound
from common.version import BUILD_INFO, BUILD_INFO_MEANING, VERSION

log = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)

# No alert or panel uses the creation times of series, which double the number of series.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

# Seconds. A download takes up to MATCH_FETCH_TIMEOUT_S, decoding takes milliseconds, a write waits for the store.
DOWNLOAD_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
DECODE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
BULK_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
RECORDS_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Instrumentation:
    """Metrics and spans of one worker process; every thread may call every method.

    `count` is called with the state of each finished task.
    """

    def __init__(self, count: Callable[[State], None] = lambda _: None) -> None:
        self._count = count
        self.registry = CollectorRegistry()
        Gauge(BUILD_INFO, BUILD_INFO_MEANING, ("version",), registry=self.registry).labels(VERSION).set(1)
        self._downloads = self._histogram(
            "match_download_seconds", "Time of each download, successful or failed.", DOWNLOAD_BUCKETS
        )
        self._decodes = self._histogram(
            "match_decode_seconds", "Time to decode and sign each image, successful or failed.", DECODE_BUCKETS
        )
        self._records = self._histogram("match_bulk_records", "Records in each write to the store.", RECORDS_BUCKETS)
        self._bulks = self._histogram(
            "match_bulk_seconds", "Time of each write to the store, successful or failed.", BULK_BUCKETS
        )
        self._outcomes = Counter(
            "match_outcomes",
            "Tasks that this process finished, by state and by the code of their error or warning.",
            ("outcome", "reason"),
            registry=self.registry,
        )
        self._deferred = Counter(
            "match_deferred",
            "Downloads that failed for now, by error code: their tasks are tried again.",
            ("reason",),
            registry=self.registry,
        )
        self._decoder_ends = Counter(
            "match_decoder_ends",
            "Decoder processes that an image ended, by reason.",
            ("reason",),
            registry=self.registry,
        )

    @contextmanager
    def trace_task(self, claim: Claim) -> Iterator[Span]:
        """Yield a span in the trace of the request that created the task; log lines carry the request's id."""
        span = tracer.start_span(
            "work",
            context=tracing.extract(claim.context.traceparent),
            kind=SpanKind.CONSUMER,
            attributes={"match.task_id": claim.task_id, "match.request_id": claim.context.request_id},
        )
        with tracing.active(span), bound(request_id=claim.context.request_id, collection=claim.collection):
            yield span

    @contextmanager
    def time_download(self) -> Iterator[None]:
        """Measure a download."""
        with tracing.active(tracer.start_span("download")), self._downloads.time():
            yield

    @contextmanager
    def time_decode(self) -> Iterator[None]:
        """Measure decoding and signing."""
        with tracing.active(tracer.start_span("decode")), self._decodes.time():
            yield

    @contextmanager
    def time_write(self, tasks: Sequence[SpanContext]) -> Iterator[None]:
        """Measure a write of one record for each of these tasks.

        Its span is a child of the first task's that is sampled, and is linked with the spans of all.
        """
        self._records.observe(len(tasks))
        traced = [task for task in tasks if task.is_valid]
        parent = next((task for task in traced if task.trace_flags.sampled), None)
        span = tracer.start_span(
            "bulk",
            context=None if parent is None else trace.set_span_in_context(NonRecordingSpan(parent)),
            links=[Link(task) for task in traced],
            attributes={"match.records": len(tasks)},
        )
        with tracing.active(span), self._bulks.time():
            yield

    def count_finished(self, state: State, code: str = "") -> None:
        """Count a finished task."""
        self._count(state)
        self._outcomes.labels(state.value, code).inc()

    def count_deferred(self, code: str) -> None:
        """Count a task that is tried again later."""
        self._deferred.labels(code).inc()

    def count_decoder_end(self, end: ProcessEnd) -> None:
        """Count a decoder process that an image ended."""
        self._decoder_ends.labels(end.value).inc()

    def serve(self, host: str, port: int) -> WSGIServer | None:
        """Serve the metrics over HTTP, unless the port is 0; an unavailable port is logged, and the worker runs."""
        if not port:
            return None
        try:
            server, _ = start_http_server(port, host, self.registry)
        except OSError as error:
            log.error("cannot serve /metrics on %s port %d: %s", host, port, error.strerror)  # noqa: TRY400 - a traceback adds nothing
            return None
        return server

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, meaning, buckets=buckets, registry=self.registry)
