"""Metrics of the API for Prometheus: requests of all its processes, and the state of the service."""

import os
from collections import Counter as Counts
from collections.abc import Iterator
from contextlib import suppress

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api.dependency_checks import DependencyChecks
from api.metrics_folder import VARIABLE
from common.decoding.process import ProcessEnd
from common.errors import MatchError
from common.queue.callbacks import CallbackState
from common.queue.stats import QueueStats
from common.version import BUILD_INFO, BUILD_INFO_MEANING, VERSION

# The time at which each series was created is of no use, and doubles the number of series.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

# A scrape waits this long for Redis and the store; scrapes within a second share one check.
SCRAPE_WITHIN_S = 2.0
FRESH_S = 1.0
# A catalogue of thousands of collections would delay each scrape.
IMAGES_FRESH_S = 15.0
# Seconds: from /ping to an add with `wait`.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Clients may send any method; a label has few values, so the others are counted as OTHER.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
# Labelled collections: those with the most open tasks. No collection has the name of the others together.
MAX_COLLECTIONS = 20
OTHER_COLLECTIONS = "_other"
# The endpoint of requests to unknown paths.
NO_ENDPOINT = "none"


class Metrics:
    """The API's metrics: `observe` counts a request, `text` answers a scrape."""

    def __init__(self, checks: DependencyChecks) -> None:
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
        self._decoder_ends = Counter(
            "match_decoder_ends", "Decoder processes that an image ended, by reason.", ("reason",), registry=own
        )
        self._scraped = CollectorRegistry() if VARIABLE in os.environ else own
        if VARIABLE in os.environ:
            MultiProcessCollector(self._scraped)  # type: ignore[no-untyped-call]  # it has no types
        self._scraped.register(_State(checks))

    def observe(self, *, method: str, endpoint: str | None, status: int, seconds: float) -> None:
        """Count an answered request."""
        name = endpoint or NO_ENDPOINT
        self._requests.labels(method if method in METHODS else OTHER, name, str(status)).inc()
        self._seconds.labels(name).observe(seconds)

    def count_decoder_end(self, end: ProcessEnd) -> None:
        """Count a decoder process that an image ended."""
        self._decoder_ends.labels(end.value).inc()

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format; they contain names of collections."""
        return generate_latest(self._scraped)


class _State(Collector):
    """The state of Redis and the store at the time of the scrape; metrics of an unavailable one are left out."""

    def __init__(self, checks: DependencyChecks) -> None:
        self._checks = checks

    def describe(self) -> Iterator[Metric]:
        """Return nothing, so that registration checks no dependency."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(BUILD_INFO, BUILD_INFO_MEANING, labels=["version"])
        build.add_metric([VERSION], 1)
        yield build
        self._checks.store.start()
        yield from self._redis()
        yield GaugeMetricFamily(
            "match_store_up", "Whether the store serves searches.", value=float(self._store_is_up())
        )
        with suppress(MatchError):
            images = self._checks.images.result(timeout_s=SCRAPE_WITHIN_S, max_age_s=IMAGES_FRESH_S)
            yield GaugeMetricFamily("match_images", "Stored images of all collections.", value=images)

    def _redis(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("match_redis_up", "Whether Redis answers.")
        try:
            stats = self._checks.queue_stats.result(timeout_s=SCRAPE_WITHIN_S, max_age_s=FRESH_S)
        except MatchError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        queues = GaugeMetricFamily("match_queue_length", "Messages in each queue.", labels=["queue"])
        for name, length in stats.queues.items():
            queues.add_metric([name], length)
        yield queues
        yield GaugeMetricFamily("match_tasks_open", "Tasks that are pending or running.", value=stats.open)
        yield GaugeMetricFamily("match_tasks_deferred", "Pending tasks that wait for their host.", value=stats.deferred)
        yield GaugeMetricFamily("match_tasks_in_flight", "Tasks that are running.", value=stats.in_flight)
        yield GaugeMetricFamily(
            "match_oldest_task_age_seconds", "Time since the oldest open task was accepted.", value=stats.oldest_age_s
        )
        yield GaugeMetricFamily("match_tasks_failed", "Failed tasks in the ledger.", value=stats.failed)
        yield GaugeMetricFamily(
            "match_queue_paused", "Whether the queue is paused: workers begin no task.", value=float(stats.is_paused)
        )
        yield GaugeMetricFamily("match_workers", "Live worker processes.", value=stats.workers)
        ended = CounterMetricFamily("match_tasks_ended", "Finished tasks of all workers.", labels=["outcome", "reason"])
        for labels, count in sorted(stats.ended.items()):
            ended.add_metric(labels, count)
        yield ended
        yield from _callbacks(stats)
        yield _by_collection(stats)

    def _store_is_up(self) -> bool:
        try:
            return self._checks.store.result(timeout_s=SCRAPE_WITHIN_S, max_age_s=FRESH_S).reads
        except MatchError:
            return False


def _by_collection(stats: QueueStats) -> Metric:
    """Return the open tasks by collection."""
    counts = Counts(stats.open_by_collection)
    largest = dict(counts.most_common(MAX_COLLECTIONS))
    family = GaugeMetricFamily(
        "match_collection_tasks_open", "Open tasks of the collections with most of them.", labels=["collection"]
    )
    for name, count in sorted(largest.items()):
        family.add_metric([name], count)
    family.add_metric([OTHER_COLLECTIONS], counts.total() - sum(largest.values()))
    return family


def _callbacks(stats: QueueStats) -> Iterator[Metric]:
    waiting = stats.callbacks[CallbackState.PENDING]
    yield GaugeMetricFamily("match_callbacks_waiting", "Task results that are not delivered yet.", value=waiting)
    yield GaugeMetricFamily(
        "match_callbacks_oldest_age_seconds",
        "Time since the oldest undelivered task result.",
        value=stats.oldest_callback_age_s,
    )
    # Exposed from the start, at 0, so that the first one is an increase for alert rules.
    counts = CounterMetricFamily(
        "match_callbacks", "Callbacks that were delivered, failed or were dropped.", labels=["outcome"]
    )
    for state in (CallbackState.DELIVERED, CallbackState.FAILED, CallbackState.DROPPED):
        counts.add_metric([state], stats.callbacks[state])
    yield counts
