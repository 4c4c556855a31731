"""Tracing: tasks continue the traces of their requests, and exported spans hold no secrets."""

import json
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext, StatusCode, TraceFlags, get_current_span

from common.config import Settings
from common.errors import FetchError
from common.queue.items import AddItem
from common.queue.jobs import RequestContext
from common.queue.ledger import Ledger
from common.telemetry import tracing
from common.telemetry.exporting import RedactingExporter
from common.telemetry.redaction import Redactor, secrets_of
from support.commands import run_python
from support.tasks import begin, enqueue
from workers import instrumentation
from workers.instrumentation import Instrumentation

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "geheim-geheim"  # noqa: S105 - looked for in spans
SETTINGS = Settings(elasticsearch_api_key=SECRET)


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    yield exporter
    exporter.shutdown()


@pytest.fixture
def tracer(exported: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Iterator[trace.Tracer]:
    """The worker's tracer, with an SDK that exports as in production."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(RedactingExporter(exported, Redactor(secrets_of(SETTINGS)))))
    tracer = provider.get_tracer("tests")
    monkeypatch.setattr(instrumentation, "tracer", tracer)
    yield tracer
    provider.shutdown()


def one_of(exported: InMemorySpanExporter) -> ReadableSpan:
    [span] = exported.get_finished_spans()
    return span


def parent_of(span: ReadableSpan) -> str:
    return "" if span.parent is None else f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}"


def context(number: int, *, sampled: bool) -> SpanContext:
    return SpanContext(number, number, is_remote=False, trace_flags=TraceFlags(int(sampled)))


def test_traceparent_survives_extract_and_inject() -> None:
    with trace.use_span(get_current_span(tracing.extract(PARENT))):
        inside = tracing.inject()

    assert inside == PARENT
    assert tracing.inject() == ""


@pytest.mark.parametrize("traceparent", ["", "x", PARENT[:-1], PARENT.upper(), "00-" + "0" * 32 + PARENT[35:]])
def test_invalid_traceparent_starts_a_new_trace(
    tracer: trace.Tracer, exported: InMemorySpanExporter, traceparent: str
) -> None:
    tracer.start_span("request", context=tracing.extract(traceparent)).end()

    assert one_of(exported).parent is None


@pytest.mark.usefixtures("tracer")
def test_task_continues_the_trace_of_its_request(exported: InMemorySpanExporter, ledger: Ledger) -> None:
    context = RequestContext(request_id="r-1", traceparent=PARENT)
    [task] = enqueue(ledger, [AddItem(filepath="a", upload_id="b")], context=context)
    claim = begin(ledger, task.id)
    worker = Instrumentation()

    with worker.trace_task(claim), worker.time_decode():
        pass

    decode, work = exported.get_finished_spans()
    assert (decode.name, work.name) == ("decode", "work")
    assert parent_of(work) == PARENT[3:-3]
    assert parent_of(decode) == f"{work.context.trace_id:032x}-{work.context.span_id:016x}"
    assert dict(work.attributes or {}) == {"match.task_id": task.id, "match.request_id": "r-1"}


@pytest.mark.usefixtures("tracer")
def test_write_joins_first_sampled_task_and_links_all(exported: InMemorySpanExporter) -> None:
    tasks = [context(1, sampled=False), INVALID_SPAN_CONTEXT, context(2, sampled=True), context(3, sampled=True)]

    with Instrumentation().time_write(tasks):
        pass

    span = one_of(exported)
    assert span.parent == context(2, sampled=True)
    assert [link.context.trace_id for link in span.links] == [1, 2, 3]
    assert dict(span.attributes or {}) == {"match.records": 4}


def test_attributes_events_and_links_are_exported_without_secrets(
    tracer: trace.Tracer, exported: InMemorySpanExporter
) -> None:
    url = f"https://me:{SECRET}@a.org/cat.jpg?sig=abcdef"
    attributes = {"url": url, "urls": [url], "bytes": 3}
    span = tracer.start_span(f"GET {url}", attributes=attributes, links=[Link(context(1, sampled=True), attributes)])
    span.add_event("retry", attributes)
    span.set_status(StatusCode.ERROR, f"no image at {url}")

    span.end()

    text = one_of(exported).to_json()
    assert SECRET not in text
    assert "abcdef" not in text
    assert json.loads(text)["attributes"] == {
        "url": "https://a.org/cat.jpg?[...]",
        "urls": ["https://a.org/cat.jpg?[...]"],
        "bytes": 3,
    }


@pytest.mark.usefixtures("tracer")
def test_exceptions_are_exported_without_secrets(exported: InMemorySpanExporter) -> None:
    def fail() -> None:
        with Instrumentation().time_download():
            raise FetchError(f"no image at https://a.org/cat.jpg?sig=abcdef with key {SECRET}")

    with pytest.raises(FetchError):
        fail()

    span = one_of(exported)
    [event] = span.events
    message = "no image at https://a.org/cat.jpg?[...] with key [...]"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, f"FetchError: {message}")
    assert (event.attributes or {})["exception.message"] == message
    assert SECRET not in span.to_json()
    assert "abcdef" not in span.to_json()


def test_services_start_without_the_sdk() -> None:
    script = (
        "import sys; sys.modules['opentelemetry.sdk'] = sys.modules['opentelemetry.exporter'] = None\n"
        "import api.wsgi, workers.app; from common.config import Settings; from common.telemetry import tracing\n"
        "tracing.configure(Settings(), service='match-api')"
    )

    done = run_python("-c", script)

    assert done.returncode == 0


def test_start_without_the_sdk_names_what_to_install() -> None:
    script = "import sys; sys.modules['opentelemetry.sdk'] = None; from common.startup import start; start('worker')"

    done = run_python("-c", script, environment={"MATCH_TRACING_ENDPOINT": "http://127.0.0.1:4318"})

    assert done.returncode == 2
    assert done.stderr == (
        "match worker: MATCH_TRACING_ENDPOINT needs OpenTelemetry: pip install -r requirements/tracing.txt\n"
    )
