"""Metrics, logs and traces of real processes."""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from common.queue.keys import TASK
from common.redis.client import connect
from dev.ports import free_port
from dev.redis_server import RedisServer
from support.http_servers import Handler, LocalServer, serving
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "examples" / "images" / "chelsea.jpg"
WITHIN_S = 90
UNAVAILABLE_REDIS = "redis://127.0.0.1:1/0"
SECRET = "geheim-geheim"  # noqa: S105 - a secret of this test only
TRACE = "0af7651916cd43dd8448eb211c80319c"

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


class Collector(LocalServer):
    """Collects spans by OTLP over HTTP, by their names."""

    def __init__(self) -> None:
        super().__init__(Traces)
        self.spans: dict[str, list[Any]] = defaultdict(list)

    def of_trace(self, trace: str) -> dict[str, list[Any]]:
        spans = [span for named in self.spans.values() for span in named if span.trace_id.hex() == trace]
        return {name: [span for span in spans if span.name == name] for name in {span.name for span in spans}}

    def counts(self, trace: str) -> set[tuple[str, int]]:
        return {(name, len(spans)) for name, spans in self.of_trace(trace).items()}


class Traces(Handler):
    server: Collector

    def answer(self) -> None:
        assert (self.command, self.path) == ("POST", "/v1/traces")
        for resource in ExportTraceServiceRequest.FromString(self.body()).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.server.spans[span.name].append(span)
        self.reply()


class Served:
    """An API of two processes and a worker."""

    def __init__(self, folder: Path, redis_url: str, collector: Collector) -> None:
        self.port, self.worker_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.logs = {"api": folder / "api.log", "workers": folder / "workers.log"}
        self.collector = collector
        environment = {
            "PORT": str(self.port),
            "MATCH_API_HOST": "127.0.0.1",
            "WORKER_COUNT": "2",
            "MATCH_API_THREADS": "8",
            "MATCH_WORKER_THREADS": "4",
            "REDIS_URL": redis_url,
            "MATCH_STORE_URL": f"sqlite:///{folder}/match.db",
            "MATCH_WORKER_METRICS_PORT": str(self.worker_port),
            "MATCH_TRACING_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            # Without a network, the resolver fails for now.
            "MATCH_FETCH_RETRY_FOR_S": "0",
        }
        self.programs = {}
        for name, log in self.logs.items():
            with log.open("w") as out:
                self.programs[name] = subprocess.Popen(
                    [sys.executable, "-m", name], cwd=ROOT, env=os.environ | environment, stderr=out, stdout=out
                )

    def processes(self) -> list[int]:
        """Return the ids of the API's worker processes."""
        pid = self.programs["api"].pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def scrape(self, *, worker: bool = False) -> Samples:
        answer = requests.get(f"http://127.0.0.1:{self.worker_port if worker else self.port}/metrics", timeout=30)
        assert answer.ok
        return samples(answer.text)

    def add(self, filepath: str, **options: Any) -> dict[str, Any]:
        files = {} if "url" in options.get("data", {}) else {"image": IMAGE.read_bytes()}
        data = {"filepath": filepath, "wait": "60"} | options.pop("data", {})
        answer = requests.post(f"{self.url}/add", data=data, files=files or None, timeout=90, **options)
        task: dict[str, Any] = answer.json()["task"]
        return task

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.logs[name].read_text().splitlines()]


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


PINGS = of("match_http_requests_total", endpoint="ping", method="GET", status="200")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("observed")
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis, serving(Collector()) as collector:
        served = Served(folder, redis.url, collector)
        wait_until(lambda: is_ready(served))
        yield served
        for program in served.programs.values():
            program.terminate()
        ends = [program.wait(WITHIN_S) for program in served.programs.values()]

        assert ends == [0, 0]


def is_ready(served: Served) -> bool:
    try:
        return served.scrape()[of("match_workers")] == 1 and requests.get(f"{served.url}/readyz", timeout=30).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


def answers_with(served: Served, pings: int) -> bool:
    """Return whether the API counts so many pings. A connection that a dead process had accepted is lost."""
    try:
        return served.scrape()[PINGS] == pings
    except (requests.ConnectionError, requests.Timeout):
        return False


def has_line_of(served: Served, program: str, request_id: str) -> bool:
    return any(line.get("request_id") == request_id for line in served.lines(program))


def ping(served: Served, times: int) -> None:
    for _ in range(times):
        assert requests.get(f"{served.url}/ping", timeout=30).ok


def test_requests_of_a_killed_process_stay_counted(served: Served) -> None:
    ping(served, 30)
    wait_until(lambda: served.scrape().get(PINGS) == 30)
    victim, survivor = served.processes()

    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(served.processes()) == 2 and victim not in served.processes())
    wait_until(lambda: answers_with(served, 30))
    ping(served, 30)

    wait_until(lambda: served.scrape()[PINGS] == 60)
    assert {served.scrape()[PINGS] for _ in range(10)} == {60}
    assert survivor in served.processes()


def test_requests_stay_counted_over_a_reload(served: Served) -> None:
    before, counted = set(served.processes()), served.scrape().get(PINGS, 0)

    served.programs["api"].send_signal(signal.SIGHUP)
    ping(served, 10)
    wait_until(lambda: len(served.processes()) == 2 and not before & set(served.processes()))
    ping(served, 10)

    wait_until(lambda: answers_with(served, counted + 20))
    assert {served.scrape()[PINGS] for _ in range(10)} == {counted + 20}


def test_finished_tasks_are_counted_by_worker_and_in_redis(served: Served) -> None:
    outcome = of("match_tasks_ended_total", outcome="succeeded", reason="")
    here = of("match_outcomes_total", outcome="succeeded", reason="")
    before, before_here = served.scrape().get(outcome, 0), served.scrape(worker=True).get(here, 0)

    for number in range(3):
        assert served.add(f"counted/{number}")["state"] == "succeeded"

    wait_until(lambda: served.scrape().get(outcome, 0) == before + 3)
    wait_until(lambda: served.scrape(worker=True).get(here, 0) == before_here + 3)
    assert served.scrape()[of("match_tasks_open")] == 0


def test_failed_task_has_one_line_with_its_request_id(served: Served) -> None:
    task = served.add(
        "lost", data={"url": f"https://nowhere.invalid/x.jpg?token={SECRET}"}, headers={"X-Request-ID": "lost-1"}
    )

    for program in ("api", "workers"):
        wait_until(lambda program=program: has_line_of(served, program, "lost-1"))
    [line] = [line for line in served.lines("workers") if line.get("task_id") == task["id"]]
    assert (line["level"], line["outcome"], line["code"]) == ("info", "failed", "unresolvable_host")
    assert task["request_id"] == line["request_id"] == "lost-1"
    [request] = [line for line in served.lines("api") if line.get("request_id") == "lost-1"]
    assert (request["method"], request["path"], request["status"]) == ("POST", "/add", 422)
    assert request["bytes"] > 0
    assert request["duration_ms"] > 0


def test_no_query_is_in_logs_or_traces(served: Served) -> None:
    url = f"https://me:{SECRET}@nowhere.invalid/{SECRET}?token={SECRET}"

    requests.get(f"{served.url}/images", params={"filepath": url}, timeout=30)
    requests.post(f"{served.url}/add", data={"url": url, "filepath": url}, timeout=30)
    requests.get(f"{served.url}/nothing/{SECRET}@here?token={SECRET}", timeout=30)
    served.add("query", data={"url": f"https://nowhere.invalid/x.jpg?token={SECRET}"}, headers={"X-Request-ID": "q"})

    wait_until(lambda: has_line_of(served, "workers", "q"))
    text = "".join(path.read_text() for path in served.logs.values()) + str(served.collector.spans)
    assert [line for line in text.splitlines() if SECRET in line and "/nothing/" not in line] == []
    assert f"token={SECRET}" not in text


def test_add_has_one_trace_from_request_to_store(served: Served) -> None:
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-ID": "traced"}

    task = served.add("traced", headers=headers)

    wait_until(lambda: len(served.collector.of_trace(TRACE)) >= 5)
    spans = served.collector.of_trace(TRACE)
    assert spans.keys() == {"POST /add", "publish match", "work", "decode", "bulk"}
    [request], [publish], [work], [decode], [bulk] = (
        spans[name] for name in ("POST /add", "publish match", "work", "decode", "bulk")
    )
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert publish.parent_span_id == request.span_id
    assert work.parent_span_id == publish.span_id
    assert decode.parent_span_id == work.span_id
    assert [link.span_id for link in bulk.links] == [work.span_id]
    attributes = {one.key: one.value.string_value for one in work.attributes}
    assert attributes == {"match.task_id": task["id"], "match.request_id": "traced"}


def test_tasks_of_a_batch_continue_its_trace(served: Served) -> None:
    trace = TRACE[::-1]
    lines = "".join(json.dumps({"url": "https://nowhere.invalid/x", "filepath": f"{n}"}) + "\n" for n in range(3))
    headers = {"Content-Type": "application/x-ndjson", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}

    requests.post(f"{served.url}/add/batch", data=lines, headers=headers, timeout=30)

    wait_until(lambda: served.collector.counts(trace) >= {("work", 3), ("publish match-batch", 1), ("download", 3)})
    spans = served.collector.of_trace(trace)
    [publish] = spans["publish match-batch"]
    assert {span.parent_span_id for span in spans["work"]} == {publish.span_id}


def test_metrics_of_unavailable_redis_are_left_out(make_client: Callable[..., FlaskClient], memory_store: Any) -> None:
    client = make_client(connect(UNAVAILABLE_REDIS))
    memory_store.away = True

    scraped = samples(client.get("/metrics").text)

    assert (scraped[of("match_redis_up")], scraped[of("match_store_up")]) == (0, 0)
    assert not any(name.startswith(("match_tasks", "match_queue")) for name, _ in scraped)


def test_unknown_paths_share_one_label(make_client: Callable[..., FlaskClient], real_redis: Any) -> None:
    client = make_client(real_redis)

    for path in ("/a", "/b"):
        client.open(path, method="BREW", buffered=True)
    scraped = samples(client.get("/metrics").text)

    assert scraped[of("match_http_requests_total", endpoint="none", method="other", status="404")] == 2


def test_traceparent_is_passed_on_without_an_exporter(make_client: Callable[..., FlaskClient], real_redis: Any) -> None:
    traceparent = f"00-{TRACE}-b7ad6b7169203331-01"
    data = {"url": "http://example.org/a.jpg", "filepath": "a"}

    reply = make_client(real_redis).post("/add", data=data, headers={"traceparent": traceparent}, buffered=True)

    assert reply.status_code == 202, reply.text
    assert real_redis.hget(TASK + reply.json["task"]["id"], "trace") == traceparent.encode()
