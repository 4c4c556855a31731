"""Traces: one from a request to the store, with no secret in it; and nothing at all where nobody collects them."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from common.errors import FetchError
from common.queue.jobs import SINGLE_QUEUE, AddJob, Origin
from common.queue.ledger import Ledger
from common.queue.tasks import State
from common.telemetry.tracing import CONSUMER, OFF, TRACEPARENT, OpenTelemetry, Tracing, trace_id
from workers.instrumentation import Instrumentation

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
UNSAMPLED = OTHER[:-2] + "00"


@pytest.fixture
def collected() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    yield exporter
    exporter.shutdown()


@pytest.fixture
def tracing(collected: InMemorySpanExporter) -> Iterator[Tracing]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(collected))
    yield OpenTelemetry(provider)
    provider.shutdown()


def one_of(collected: InMemorySpanExporter) -> ReadableSpan:
    [span] = collected.get_finished_spans()
    return span


def parent_of(span: ReadableSpan) -> str:
    return "" if span.parent is None else f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}"


def test_a_span_goes_on_with_the_trace_that_it_is_given(tracing: Tracing, collected: InMemorySpanExporter) -> None:
    with tracing.span("work", kind=CONSUMER, parent=PARENT) as span:
        named = span.traceparent

    assert TRACEPARENT.fullmatch(named)
    assert trace_id(named) == trace_id(PARENT)
    assert parent_of(one_of(collected)) == PARENT[3:-3]
    assert one_of(collected).kind.name == "CONSUMER"


def test_spans_inside_are_children_and_the_current_one_can_be_named(
    tracing: Tracing, collected: InMemorySpanExporter
) -> None:
    with tracing.span("outer") as outer:
        named = tracing.current()
        with tracing.span("inner"):
            pass

    inner = collected.get_finished_spans()[0]
    assert named == outer.traceparent
    assert parent_of(inner) == named[3:-3]
    assert tracing.current() == ""


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        PARENT[:-1],
        PARENT.upper(),
        PARENT + "\n",
        "01" + PARENT[2:],
        "00-" + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + "-01",
    ],
)
def test_what_is_no_traceparent_begins_a_trace(tracing: Tracing, collected: InMemorySpanExporter, given: str) -> None:
    with tracing.span("request", parent=given, links=[given]):
        pass

    assert one_of(collected).parent is None
    assert one_of(collected).links == ()


def test_a_trace_that_its_sender_does_not_collect_is_not_collected(
    tracing: Tracing, collected: InMemorySpanExporter
) -> None:
    with tracing.span("request", parent=UNSAMPLED) as span:
        named = span.traceparent

    assert collected.get_finished_spans() == ()
    assert (trace_id(named), named[-2:]) == (trace_id(UNSAMPLED), "00")


def test_no_secret_of_a_url_and_no_text_of_an_error_is_collected(
    tracing: Tracing, collected: InMemorySpanExporter
) -> None:
    url = "https://me:geheim@a.org/cat.jpg?sig=geheim"

    def break_off() -> None:
        with tracing.span("download", about={"url": url, "bytes": 3}) as span:
            span.note(where=url)
            raise FetchError(f"no picture at {url}")

    with pytest.raises(FetchError):
        break_off()

    found = one_of(collected)
    assert "geheim" not in found.to_json()
    assert dict(found.attributes or {})["url"] == "https://a.org/cat.jpg?[...]"
    assert (found.status.status_code, found.status.description, found.events) == (StatusCode.ERROR, "FetchError", ())


def test_a_write_belongs_to_the_first_task_that_is_collected_and_is_linked_with_all(
    tracing: Tracing, collected: InMemorySpanExporter
) -> None:
    worker = Instrumentation(tracing)

    with worker.time_write([UNSAMPLED, "", PARENT, OTHER]):
        pass

    found = one_of(collected)
    assert parent_of(found) == PARENT[3:-3]
    assert [link.context.trace_flags for link in found.links] == [0, 1, 1]
    assert dict(found.attributes or {}) == {"match.records": 4}


def test_a_task_goes_on_with_the_trace_that_it_was_sent_in(
    tracing: Tracing, collected: InMemorySpanExporter, ledger: Ledger
) -> None:
    origin = Origin(request_id="r-1", traceparent=PARENT)
    [task] = ledger.accept([AddJob(filepath="a", upload="b")], queue=SINGLE_QUEUE, origin=origin)
    claim = ledger.begin(task.id)
    assert claim is not None
    worker = Instrumentation(tracing)

    with worker.trace_task(claim), worker.time_decode():
        worker.count_finished(State.SUCCEEDED)

    decode, work = collected.get_finished_spans()
    assert (decode.name, work.name) == ("decode", "work")
    assert parent_of(work) == PARENT[3:-3]
    assert dict(work.attributes or {}) == {"match.task_id": task.id, "match.request_id": "r-1"}


def test_where_nobody_collects_there_is_nothing() -> None:
    with OFF.span("request", parent=PARENT, about={"a": 1}) as span:
        span.note(b=2)
        span.fail("nothing")

    assert (span.traceparent, OFF.current()) == ("", "")
