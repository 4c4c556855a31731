"""Dashboard and alert rules: their queries fit the exposed metrics, and the guide describes each alert."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import fakeredis
import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from opentelemetry.trace import INVALID_SPAN_CONTEXT
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from api.dependency_checks import DependencyChecks
from api.metrics import Metrics
from common.queue.items import AddItem
from common.queue.ledger import Ledger
from common.queue.tasks import State
from common.store.base import Collection, Health, Store
from dev.promtool import PROMTOOL
from support.tasks import enqueue, fail
from workers.instrumentation import Instrumentation

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "observability" / "prometheus"
CONFIGURATIONS = sorted(FOLDER.glob("prometheus*.yml"))
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
DASHBOARD = json.loads((ROOT / "observability" / "grafana" / "match.json").read_text())
GROUPS = [
    group for name in ("alerts.yml", "recording.yml") for group in yaml.safe_load((FOLDER / name).read_text())["groups"]
]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Labels that Prometheus and the Kubernetes configuration add to each sample.
SCRAPED_WITH = {"job", "instance", "namespace"}
# Grafana replaces these.
VARIABLES = {"$__rate_interval": "5m", "$namespace": "a|b"}


def queries() -> dict[str, str]:
    """Return every query by the name of its rule or panel."""
    queries_by_name = {rule.get("alert") or rule["record"]: rule["expr"] for rule in RULES}
    for panel in PANELS:
        for target in panel["targets"]:
            queries_by_name[f"{panel['title']} {target['refId']}"] = in_grafana(target["expr"])
    return queries_by_name


def in_grafana(query: str) -> str:
    """Return the query as Grafana sends it."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


QUERIES = queries()


def selectors(query: str) -> Iterator[promql_parser.VectorSelector]:
    selected: list[promql_parser.VectorSelector] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            selected.append(node)
        if isinstance(node, promql_parser.MatrixSelector):
            selected.append(node.vector_selector)
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    yield from selected


def grouped_by(query: str) -> set[str]:
    labels: set[str] = set()

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            labels.update(node.modifier.labels)
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    return labels


# Prometheus's configuration has the absolute URL of the documentation, as an external label.
DOCS = "{{ $externalLabels.match_docs }}"


class HealthyStore:
    """A healthy store."""

    def health(self) -> Health:
        return Health(reads=True, writes=True, detail="")

    def collections(self) -> list[Collection]:
        return [Collection(name="default", images=3)]


@pytest.fixture(scope="module")
def exposed() -> Mapping[str, set[str]]:
    """Every sample of the API and of a worker, with its labels, once each metric has a value."""
    redis = fakeredis.FakeRedis()
    ledger = Ledger(redis, max_open=10, finished_keep_s=60, failed_keep_s=60)
    [task] = enqueue(ledger, [AddItem(filepath="a.jpg", url="https://example.com/a.jpg")])
    fail(ledger, task.id, code="timeout", error="too slow")
    api = Metrics(DependencyChecks(cast("Store", HealthyStore()), ledger, redis))
    api.observe(method="POST", endpoint="add", status=202, seconds=0.1)
    worker = Instrumentation()
    with worker.time_download(), worker.time_decode(), worker.time_write([INVALID_SPAN_CONTEXT]):
        worker.count_finished(State.SUCCEEDED)
    return {
        sample.name: set(sample.labels)
        for text in (api.text(), generate_latest(worker.registry))
        for metric in text_string_to_metric_families(text.decode())
        for sample in metric.samples
    }


# --- queries -----------------------------------------------------------------


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_queries_use_exposed_metrics_and_labels(query: str, exposed: Mapping[str, set[str]]) -> None:
    selected = list(selectors(query))

    assert selected
    for one in selected:
        if one.name in RECORDED:
            continue
        assert one.name in exposed
        named = {matcher.name for matcher in one.matchers.matchers}
        assert named <= exposed[one.name] | SCRAPED_WITH


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_queries_group_by_labels_of_their_metrics(query: str, exposed: Mapping[str, set[str]]) -> None:
    existing = set[str]().union(*(exposed.get(one.name or "", {"endpoint", "outcome"}) for one in selectors(query)))

    assert grouped_by(query) <= existing | SCRAPED_WITH


def test_every_metric_of_the_service_is_on_the_dashboard(exposed: Mapping[str, set[str]]) -> None:
    existing = {family(name) for name in exposed}

    shown = {
        family(one.name)
        for panel in PANELS
        for target in panel["targets"]
        for one in selectors(in_grafana(target["expr"]))
    }

    assert existing - shown == set()


def family(sample: str | None) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", sample or "")


# --- alerts ------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alerts_have_severity_duration_and_runbook(alert: Mapping[str, Any]) -> None:
    annotations = alert["annotations"]

    assert re.fullmatch(r"\d+m", alert["for"])
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert annotations["summary"]
    assert annotations["description"]
    assert annotations["runbook_url"] == f"{DOCS}/runbook.md#{alert['alert'].lower()}"


def test_the_runbook_describes_each_alert_and_its_severity() -> None:
    sections = dict(re.findall(r"^### (Match\w+)\n\n\*(\w+)\.\*", RUNBOOK, flags=re.MULTILINE))

    assert sections == {alert["alert"]: alert["labels"]["severity"] for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_the_runbook_explains_looks_and_acts(alert: Mapping[str, Any]) -> None:
    section = RUNBOOK.partition(f"### {alert['alert']}\n")[2].partition("\n#")[0]

    parts = re.findall(r"\*\*(Means|Look|Do):\*\*", section)

    assert parts == ["Means", "Look", "Do"]


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((FOLDER / "tests" / "alerts.yml").read_text())["tests"]
    tried = [one for test in tests for one in test.get("alert_rule_test", ())]

    names = {alert["alert"] for alert in ALERTS}

    assert {one["alertname"] for one in tried if "exp_alerts" in one} == names
    assert {one["alertname"] for one in tried if "exp_alerts" not in one} == names


@pytest.fixture
def run_promtool(give_up: Callable[[str], NoReturn]) -> Callable[..., str]:
    program = PROMTOOL.find() or give_up("no promtool: `make promtool` builds it where Go is")

    def run(*words: str) -> str:
        done = subprocess.run([program, *words], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_promtool_accepts_the_rules(run_promtool: Callable[..., str]) -> None:
    output = run_promtool(
        "check", "rules", "--lint=all", "--lint-fatal", f"{FOLDER}/alerts.yml", f"{FOLDER}/recording.yml"
    )

    assert f"{len(ALERTS)} rules found" in output


def test_alerts_fire_only_when_they_should(run_promtool: Callable[..., str]) -> None:
    output = run_promtool("test", "rules", f"{FOLDER}/tests/alerts.yml")

    assert "SUCCESS" in output


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_promtool_accepts_the_example_configurations(path: Path, run_promtool: Callable[..., str]) -> None:
    output = run_promtool("check", "config", f"{path}")

    assert "is valid prometheus config file syntax" in output


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_example_configurations_scrape_api_and_workers(path: Path) -> None:
    text = path.read_text()
    configuration = yaml.safe_load(text)

    assert set(configuration["rule_files"]) == {"alerts.yml", "recording.yml"}
    assert "9464" in text or "worker;metrics" in text
    assert {job["job_name"] for job in configuration["scrape_configs"]} <= {"match", "match-worker"}


# --- the dashboard -----------------------------------------------------------


def test_example_configuration_for_compose_scrapes_every_container() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus-compose.yml").read_text())["scrape_configs"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    scraped = {name for job in jobs for name in job["dns_sd_configs"][0]["names"]}

    assert scraped == {name for name in services if name.startswith(("api", "worker"))}


def differences(original: Any, known: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of fields that Grafana's model drops or changes."""
    if isinstance(original, dict):
        for name, value in original.items():
            if not isinstance(known, dict) or name not in known:
                # Fields without a value are omitted.
                if value is not None:
                    yield f"{path}/{name}"
            else:
                yield from differences(value, known[name], f"{path}/{name}")
    elif isinstance(original, list) and isinstance(known, list) and len(original) == len(known):
        for number, (one, other) in enumerate(zip(original, known, strict=True)):
            yield from differences(one, other, f"{path}/{number}")
    elif original != known:
        yield f"{path}: {original!r} is read as {known!r}"


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    register_default_plugins()

    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(json.loads(json.dumps(DASHBOARD)))))

    assert list(differences(DASHBOARD, read)) == []


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panels_have_the_chosen_source_description_and_unit(panel: Mapping[str, Any]) -> None:
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]

    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]


def test_panels_do_not_overlap() -> None:
    taken: list[tuple[int, int]] = []
    for panel in DASHBOARD["panels"]:
        position = panel["gridPos"]
        taken += [(x + position["x"], y + position["y"]) for x in range(position["w"]) for y in range(position["h"])]

    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
