"""docs/observability.md lists exactly the metrics and the log fields."""

import re
from pathlib import Path
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from api.dependency_checks import DependencyChecks
from api.metrics import Metrics
from common.decoding.process import ProcessEnd
from common.queue.keys import ENDED
from common.queue.ledger import Ledger
from common.queue.tasks import State
from common.telemetry.logs import FIELDS
from workers.instrumentation import Instrumentation

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "observability.md").read_text()
# The label of a histogram's buckets.
BUCKET = "le"


def exposed(text: bytes) -> dict[str, tuple[str, frozenset[str]]]:
    """Return the type and the labels of each metric."""
    metrics = {}
    for family in text_string_to_metric_families(text.decode()):
        labels = {label for sample in family.samples for label in sample.labels}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        metrics[name] = (family.type, frozenset(labels - {BUCKET}))
    return metrics


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    rows = re.findall(r"^\| `(match_\w+)` \| (\w+) \| (.*?) ?\| .+ \|$", DOCUMENT, re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_metrics_are_documented_with_type_and_labels(memory_store: Any, ledger: Ledger, fake_redis: Redis) -> None:
    metrics, worker = Metrics(DependencyChecks(memory_store, ledger, fake_redis)), Instrumentation()
    metrics.observe(method="GET", endpoint="ping", status=200, seconds=0.1)
    metrics.count_decoder_end(ProcessEnd.CRASHED)
    worker.count_finished(State.SUCCEEDED)
    worker.count_deferred("http_rate_limited")
    worker.count_decoder_end(ProcessEnd.CRASHED)
    fake_redis.hset(ENDED, "succeeded:", 1)

    assert exposed(metrics.text()) | exposed(generate_latest(worker.registry)) == documented()


def test_log_fields_are_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", DOCUMENT, re.MULTILINE)

    assert dict(rows) == FIELDS
