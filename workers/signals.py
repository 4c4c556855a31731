"""What a worker tells of its work: times and counts for Prometheus, spans, and whose the lines of its log are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from common.queue.tasks import Claim, State
from common.telemetry.logs import bound
from common.telemetry.tracing import CONSUMER, OFF, Span, Tracing, trace_id

# When each count began is of no use, and doubles their number.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

# Seconds: a download may take MATCH_FETCH_TIMEOUT_S, a picture is decoded in milliseconds, a write waits for the store.
DOWNLOAD_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
DECODE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
BULK_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
RECORDS_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Signals:
    """Those of one process, from all of its threads."""

    def __init__(self, tracing: Tracing = OFF) -> None:
        self._tracing = tracing
        self._registry = CollectorRegistry()
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
            registry=self._registry,
        )

    @contextmanager
    def task(self, claim: Claim) -> Iterator[Span]:
        """Tell of a task as long as the `with` lasts: as part of the trace that it was sent in."""
        about = {"match.task_id": claim.task_id, "match.request_id": claim.origin.request_id}
        with (
            self._tracing.span("work", kind=CONSUMER, parent=claim.origin.traceparent, about=about) as span,
            bound(request_id=claim.origin.request_id, trace_id=trace_id(span.traceparent)),
        ):
            yield span

    @contextmanager
    def download(self) -> Iterator[None]:
        """Tell of a download."""
        with self._tracing.span("download"), _timed(self._downloads):
            yield

    @contextmanager
    def decode(self) -> Iterator[None]:
        """Tell of decoding and signing."""
        with self._tracing.span("decode"), _timed(self._decodes):
            yield

    @contextmanager
    def bulk(self, traces: Sequence[str]) -> Iterator[None]:
        """Tell of a write of as many records as there are `traces`, the traceparents of their tasks.

        Its span belongs to the trace of the first that is collected, and is linked with all.
        """
        self._records.observe(len(traces))
        known = [trace for trace in traces if trace]
        parent = next((trace for trace in known if trace.endswith("01")), "")
        about = {"match.records": len(traces)}
        with self._tracing.span("bulk", parent=parent, links=known, about=about), _timed(self._bulks):
            yield

    def ended(self, state: State, code: str = "") -> None:
        """Count the end of a task."""
        self._outcomes.labels(state.value, code).inc()

    def trace(self) -> str:
        """Return the traceparent of what this thread does, empty where it is not traced."""
        return self._tracing.current()

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, meaning, buckets=buckets, registry=self._registry)


@contextmanager
def _timed(histogram: Histogram) -> Iterator[None]:
    began = perf_counter()
    try:
        yield
    finally:
        histogram.observe(perf_counter() - began)
