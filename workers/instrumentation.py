"""Metrics, spans and log fields of a worker's tasks."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from wsgiref.simple_server import WSGIServer

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from common.queue.tasks import Claim, State
from common.telemetry.logs import bound
from common.telemetry.tracing import CONSUMER, OFF, Span, Tracing, trace_id

log = logging.getLogger(__name__)

# The time at which each series was created is of no use, and doubles the number of series.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

# Seconds. A download takes up to MATCH_FETCH_TIMEOUT_S, decoding takes milliseconds, a write waits for the store.
DOWNLOAD_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
DECODE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
BULK_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
RECORDS_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Instrumentation:
    """Metrics and spans of one worker process; every thread may call every method."""

    def __init__(self, tracing: Tracing = OFF) -> None:
        self._tracing = tracing
        self.registry = CollectorRegistry()
        self._downloads = self._histogram(
            "match_download_seconds", "Time of each download, good or failed.", DOWNLOAD_BUCKETS
        )
        self._decodes = self._histogram(
            "match_decode_seconds", "Time to decode and sign each picture, good or bad.", DECODE_BUCKETS
        )
        self._records = self._histogram("match_bulk_records", "Records in each write to the store.", RECORDS_BUCKETS)
        self._bulks = self._histogram(
            "match_bulk_seconds", "Time of each write to the store, good or failed.", BULK_BUCKETS
        )
        self._outcomes = Counter(
            "match_outcomes",
            "Tasks that this process ended, by their state and, where they failed, the code of their error.",
            ("outcome", "reason"),
            registry=self.registry,
        )

    @contextmanager
    def trace_task(self, claim: Claim) -> Iterator[Span]:
        """Tell of a task as long as the `with` lasts: as part of the trace that it was sent in."""
        about = {"match.task_id": claim.task_id, "match.request_id": claim.origin.request_id}
        with (
            self._tracing.span("work", kind=CONSUMER, parent=claim.origin.traceparent, about=about) as span,
            bound(request_id=claim.origin.request_id, trace_id=trace_id(span.traceparent)),
        ):
            yield span

    @contextmanager
    def time_download(self) -> Iterator[None]:
        """Tell of a download."""
        with self._tracing.span("download"), _timed(self._downloads):
            yield

    @contextmanager
    def time_decode(self) -> Iterator[None]:
        """Tell of decoding and signing."""
        with self._tracing.span("decode"), _timed(self._decodes):
            yield

    @contextmanager
    def time_write(self, traces: Sequence[str]) -> Iterator[None]:
        """Tell of a write of as many records as there are `traces`, the traceparents of their tasks.

        Its span belongs to the trace of the first that is collected, and is linked with all.
        """
        self._records.observe(len(traces))
        known = [trace for trace in traces if trace]
        parent = next((trace for trace in known if trace.endswith("01")), "")
        about = {"match.records": len(traces)}
        with self._tracing.span("bulk", parent=parent, links=known, about=about), _timed(self._bulks):
            yield

    def count_finished(self, state: State, code: str = "") -> None:
        """Count the end of a task."""
        self._outcomes.labels(state.value, code).inc()

    def trace(self) -> str:
        """Return the traceparent of what this thread does, empty where it is not traced."""
        return self._tracing.current()

    def serve(self, host: str, port: int) -> WSGIServer | None:
        """Serve the metrics over HTTP, unless the port is 0; a worker whose port is in use works without."""
        if not port:
            return None
        try:
            server, _ = start_http_server(port, host, self.registry)
        except OSError as error:
            log.error("cannot serve /metrics on %s port %d: %s", host, port, error.strerror)  # noqa: TRY400 - no fault
            return None
        return server

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, meaning, buckets=buckets, registry=self.registry)


@contextmanager
def _timed(histogram: Histogram) -> Iterator[None]:
    began = perf_counter()
    try:
        yield
    finally:
        histogram.observe(perf_counter() - began)
