"""What Prometheus is told: requests, counted by all processes of the server together, and the state of the service."""

import os
from collections.abc import Iterator

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api.metrics_folder import VARIABLE
from api.vitals import Vitals
from common.errors import MatchError
from common.queue.callbacks import CallState
from common.queue.figures import Figures

# When each count began is of no use, and doubles their number.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

# A scrape waits no longer than this for what is silent, and several within a second ask once.
SCRAPE_WITHIN_S = 2.0
FRESH_S = 1.0
# Seconds: from what asks nobody to a `wait`.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# A method is the client's word: any other is counted as one.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
# Of requests that no endpoint answers.
NO_ENDPOINT = "none"


class Metrics:
    """The API's metrics: `observe` each request, `text` is what is scraped."""

    def __init__(self, vitals: Vitals) -> None:
        own = CollectorRegistry()
        self._requests = Counter(
            "match_http_requests",
            "Requests answered, by method, endpoint and HTTP status.",
            ("method", "endpoint", "status"),
            registry=own,
        )
        self._seconds = Histogram(
            "match_http_request_duration_seconds",
            "Time from a request's arrival to the last byte of its reply.",
            ("endpoint",),
            buckets=BUCKETS,
            registry=own,
        )
        self._scraped = CollectorRegistry() if VARIABLE in os.environ else own
        if VARIABLE in os.environ:
            MultiProcessCollector(self._scraped)  # type: ignore[no-untyped-call]  # it has no types
        self._scraped.register(_State(vitals))

    def observe(self, *, method: str, endpoint: str | None, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        name = endpoint or NO_ENDPOINT
        self._requests.labels(method if method in METHODS else OTHER, name, str(status)).inc()
        self._seconds.labels(name).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._scraped)


class _State(Collector):
    """The state of the service at the time of the scrape; what does not answer leaves out what only it knows."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def describe(self) -> Iterator[Metric]:
        """Return nothing: registering asks nobody."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        self._vitals.store.begin()
        yield from self._of_redis()
        yield GaugeMetricFamily(
            "match_store_up", "Whether the store serves searches.", value=float(self._store_is_up())
        )

    def _of_redis(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("match_redis_up", "Whether Redis answers.")
        try:
            now = self._vitals.figures.answer(within_s=SCRAPE_WITHIN_S, not_older_s=FRESH_S)
        except MatchError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        queues = GaugeMetricFamily("match_queue_length", "Messages that wait in each queue.", labels=["queue"])
        for name, length in now.queues.items():
            queues.add_metric([name], length)
        yield queues
        yield GaugeMetricFamily("match_tasks_open", "Tasks that wait or run.", value=now.open)
        yield GaugeMetricFamily("match_tasks_in_flight", "Tasks that a worker has begun.", value=now.in_flight)
        yield GaugeMetricFamily(
            "match_oldest_task_age_seconds", "Time since the oldest open task was accepted.", value=now.oldest_age_s
        )
        yield GaugeMetricFamily("match_tasks_failed", "Failed tasks that are kept.", value=now.failed)
        yield GaugeMetricFamily("match_workers", "Worker processes that live.", value=now.workers)
        ended = CounterMetricFamily(
            "match_tasks_ended", "Tasks that ended, of all workers.", labels=["outcome", "reason"]
        )
        for labels, count in sorted(now.ended.items()):
            ended.add_metric(labels, count)
        yield ended
        yield from _of_callbacks(now)

    def _store_is_up(self) -> bool:
        try:
            return self._vitals.store.answer(within_s=SCRAPE_WITHIN_S, not_older_s=FRESH_S).reads
        except MatchError:
            return False


def _of_callbacks(now: Figures) -> Iterator[Metric]:
    waiting = now.called[CallState.PENDING]
    yield GaugeMetricFamily("match_callbacks_waiting", "Ends of tasks that are still to be told.", value=waiting)
    yield GaugeMetricFamily(
        "match_callbacks_oldest_age_seconds",
        "Time since the end that has waited longest to be told.",
        value=now.oldest_call_age_s,
    )
    # Each is told from the start, at 0: a first one is a rise that an alert sees.
    counts = CounterMetricFamily("match_callbacks", "Callbacks that came to an end.", labels=["outcome"])
    for state in (CallState.DELIVERED, CallState.FAILED, CallState.DROPPED):
        counts.add_metric([state], now.called[state])
    yield counts
