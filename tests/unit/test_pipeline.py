"""The pipeline: one task, from its item to its record or its failure."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import pytest
from PIL import Image
from prometheus_client import generate_latest
from redis import Redis

from common.byte_budget import ByteBudget
from common.config import Settings
from common.decoding.protocol import Output
from common.errors import FetchError, Overloaded, QueueUnavailable, StoreUnavailable
from common.images.decode import decode
from common.images.signature import sign
from common.net.connector import TransientFetchError
from common.net.fetch import Reserve, unlimited
from common.queue.items import AddItem
from common.queue.jobs import RequestContext
from common.queue.keys import HOST, SLOTS, TASK
from common.queue.ledger import Ledger
from common.queue.tasks import State, Task
from common.telemetry.logs import formatter
from common.uploads import Uploads
from support.images import encode, gradient
from support.pipelines import MAX_IMAGE_BYTES, open_pipeline
from support.tasks import enqueue, task_of
from workers.pipeline import MAX_UNFINISHED, Pipeline

URL = "http://example.org/cat.png"
IMAGE = gradient(size=(60, 40))


class Web:
    """A fetcher that returns the bytes in `pages`, else fails as with a 404; while `is_down`, as with a 503."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.is_down = False
        self.fetches = 0

    def fetch(self, url: str, *, reserve: Reserve = unlimited) -> bytes:
        self.fetches += 1
        if self.is_down:
            raise TransientFetchError("example.org answered 503", code="http_server_error", retry_after_s=9)
        if url not in self.pages:
            raise FetchError("example.org answered 404", code="http_status")
        reserve(len(self.pages[url]), within_s=0)
        return self.pages[url]


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def budget() -> ByteBudget:
    return ByteBudget(2 * MAX_IMAGE_BYTES, wait_s=0)


@pytest.fixture
def pipeline(
    fake_redis: Redis, ledger: Ledger, uploads: Uploads, memory_store: Any, web: Web, budget: ByteBudget
) -> Iterator[Pipeline]:
    with open_pipeline(fake_redis, ledger, uploads, memory_store, fetcher=web, budget=budget) as pipeline:
        yield pipeline


@pytest.fixture
def accept(ledger: Ledger) -> Callable[..., str]:
    def accept(filepath: str = "cat.png", **source: Any) -> str:
        [task] = enqueue(ledger, [AddItem(filepath=filepath, **source)])
        return task.id

    return accept


@pytest.fixture
def ended(ledger: Ledger) -> Callable[[str], Task]:
    return partial(task_of, ledger)


def source(memory_store: Any) -> tuple[bytes | None, str | None]:
    record = memory_store.records(["cat.png"])["cat.png"]
    return record.sha256, record.url


def test_an_upload_becomes_a_record(
    pipeline: Pipeline, uploads: Uploads, memory_store: Any, accept: Any, ended: Any
) -> None:
    task_id = accept(upload_id=uploads.put(IMAGE), metadata={"kind": "cat"})

    pipeline.run(task_id)

    record = memory_store.records(["cat.png"])["cat.png"]
    assert (record.width, record.height, record.metadata, record.seq) == (60, 40, {"kind": "cat"}, ended(task_id).seq)
    assert (record.signatures[0] == sign(decode(IMAGE).pixels)).all()
    assert (record.sha256, record.url) == (hashlib.sha256(IMAGE).digest(), None)
    assert ended(task_id).state is State.SUCCEEDED


def test_a_url_becomes_a_record(pipeline: Pipeline, web: Web, memory_store: Any, accept: Any, ended: Any) -> None:
    web.pages[URL] = IMAGE
    task_id = accept(url=URL)

    pipeline.run(task_id)

    assert memory_store.filepaths(offset=0, limit=9).filepaths == ["cat.png"]
    assert source(memory_store) == (hashlib.sha256(IMAGE).digest(), URL)
    assert ended(task_id).state is State.SUCCEEDED


def test_a_temporary_fault_is_tried_again_later(
    pipeline: Pipeline, web: Web, fake_redis: Redis, accept: Any, ended: Any
) -> None:
    web.pages[URL], web.is_down = IMAGE, True
    task_id = accept(url=URL)
    pipeline.run(task_id)
    waiting = ended(task_id)

    web.is_down = False
    fake_redis.delete(HOST + "example.org")
    pipeline.run(task_id)

    assert (waiting.state, waiting.cause) == (State.PENDING, ("http_server_error", "example.org answered 503"))
    assert (ended(task_id).state, ended(task_id).attempts) == (State.SUCCEEDED, 2)
    assert (
        'match_deferred_total{reason="http_server_error"} 1.0'
        in generate_latest(pipeline.instrumentation.registry).decode()
    )


def test_a_fault_that_lasts_too_long_fails_the_task(
    pipeline: Pipeline, web: Web, fake_redis: Redis, accept: Any, ended: Any
) -> None:
    web.is_down = True
    task_id = accept(url=URL)
    pipeline.run(task_id)
    fake_redis.hincrby(TASK + task_id, "faulty_since", -3_600_000)

    pipeline.run(task_id)

    task = ended(task_id)
    assert (task.state, task.code, task.error) == (State.FAILED, "http_server_error", "example.org answered 503")


def test_a_host_that_is_given_up_is_not_asked(
    pipeline: Pipeline, web: Web, fake_redis: Redis, accept: Any, ended: Any
) -> None:
    web.is_down = True
    old, new = accept(url=URL), accept("new", url=URL)
    pipeline.run(old)
    fake_redis.hincrby(HOST + "example.org", "since", -3_600_000)
    fake_redis.hincrby(TASK + old, "accepted", -3_600_000)

    pipeline.run(old)
    pipeline.run(new)

    assert (ended(old).state, ended(old).code) == (State.FAILED, "http_server_error")
    assert ended(new).state is State.PENDING
    assert web.fetches == 2


def test_signed_url_is_stored_without_its_signature(
    pipeline: Pipeline, web: Web, memory_store: Any, accept: Any
) -> None:
    signed = f"{URL}?size=2&X-Amz-Date=1&X-Amz-Signature=geheim#top"
    web.pages[signed] = IMAGE

    pipeline.run(accept(url=signed))

    assert source(memory_store) == (hashlib.sha256(IMAGE).digest(), f"{URL}?size=2")


def test_source_url_is_not_kept_by_setting(pipeline: Pipeline, web: Web, memory_store: Any, accept: Any) -> None:
    web.pages[URL] = IMAGE

    replace(pipeline, keep_source_url=False).run(accept(url=URL))

    assert source(memory_store) == (hashlib.sha256(IMAGE).digest(), None)


@pytest.mark.parametrize("source", ["upload", "url"])
def test_without_memory_a_task_stays_open(
    pipeline: Pipeline, uploads: Uploads, web: Web, budget: ByteBudget, accept: Any, ended: Any, source: str
) -> None:
    web.pages[URL] = IMAGE
    task_id = accept(url=URL) if source == "url" else accept(upload_id=uploads.put(IMAGE))

    with budget.reservation() as other:
        other.resize(2 * MAX_IMAGE_BYTES)
        with pytest.raises(Overloaded):
            pipeline.run(task_id)
    waiting = ended(task_id).state
    pipeline.run(task_id)

    assert waiting is State.PENDING
    assert ended(task_id).state is State.SUCCEEDED
    assert budget.free_bytes == 2 * MAX_IMAGE_BYTES


def test_a_plain_image_is_stored_with_a_warning(
    pipeline: Pipeline, uploads: Uploads, memory_store: Any, accept: Any, ended: Any
) -> None:
    task_id = accept(upload_id=uploads.put(encode(Image.new("RGB", (60, 40), "white"))))

    pipeline.run(task_id)

    task = ended(task_id)
    assert (task.state, task.warning, task.code, task.error) == (State.SUCCEEDED, "featureless", None, None)
    assert memory_store.count() == 1
    assert 'match_outcomes_total{outcome="succeeded",reason="featureless"} 1.0' in counted(pipeline)


def test_a_failed_download_fails_its_task(pipeline: Pipeline, accept: Any, ended: Any) -> None:
    task_id = accept(url=URL)

    pipeline.run(task_id)

    task = ended(task_id)
    assert (task.state, task.code, task.error) == (State.FAILED, "http_status", "example.org answered 404")


def test_invalid_image_bytes_fail_with_a_reason(
    pipeline: Pipeline, uploads: Uploads, memory_store: Any, accept: Any, ended: Any
) -> None:
    task_id = accept(upload_id=uploads.put(b"<html>"))

    pipeline.run(task_id)

    assert (ended(task_id).state, ended(task_id).code) == (State.FAILED, "not_an_image")
    assert memory_store.count() == 0


def test_a_failed_request_supersedes_nothing(
    pipeline: Pipeline, uploads: Uploads, memory_store: Any, accept: Any
) -> None:
    good, bad = accept(upload_id=uploads.put(IMAGE)), accept(upload_id=uploads.put(b"not an image"))

    pipeline.run(bad)
    pipeline.run(good)

    assert memory_store.filepaths(offset=0, limit=9).filepaths == ["cat.png"]


def test_a_lost_upload_fails_its_task(pipeline: Pipeline, accept: Any, ended: Any) -> None:
    task_id = accept(upload_id="gone")

    pipeline.run(task_id)

    assert (ended(task_id).state, ended(task_id).code) == (State.FAILED, "upload_lost")


def test_a_closed_task_is_not_run_again(pipeline: Pipeline, memory_store: Any, web: Web, accept: Any) -> None:
    web.pages[URL] = IMAGE
    task_id = accept(url=URL)
    pipeline.run(task_id)

    pipeline.run(task_id)

    assert len(memory_store.writes) == 1


def test_a_store_outage_keeps_task_and_upload(
    pipeline: Pipeline, uploads: Uploads, memory_store: Any, accept: Any, ended: Any
) -> None:
    memory_store.away = True
    upload = uploads.put(IMAGE)
    task_id = accept(upload_id=upload)

    with pytest.raises(StoreUnavailable):
        pipeline.run(task_id)

    assert ended(task_id).state is State.PENDING
    assert uploads.get(upload) == IMAGE


def test_store_outages_do_not_lose_a_task(
    pipeline: Pipeline, uploads: Uploads, memory_store: Any, accept: Any, ended: Any
) -> None:
    task_id = accept(upload_id=uploads.put(IMAGE))
    memory_store.away = True
    for _ in range(MAX_UNFINISHED + 2):
        with pytest.raises(StoreUnavailable):
            pipeline.run(task_id)

    memory_store.away = False
    pipeline.run(task_id)

    assert ended(task_id).state is State.SUCCEEDED


def test_a_task_that_ends_five_workers_fails(pipeline: Pipeline, uploads: Uploads, accept: Any, ended: Any) -> None:
    task_id = accept(upload_id=uploads.put(IMAGE))
    for _ in range(MAX_UNFINISHED):
        pipeline.ledger.begin(task_id)

    pipeline.run(task_id)

    task = ended(task_id)
    assert (task.state, task.code, task.attempts) == (State.FAILED, "worker_lost", MAX_UNFINISHED + 1)


def test_a_task_not_begun_again_holds_no_slot(pipeline: Pipeline, fake_redis: Redis, accept: Any, ended: Any) -> None:
    fake_redis.hset(HOST + "example.org", mapping={"rate": 10, "slots": 5})
    task_id = accept(url=URL)
    fake_redis.hset(TASK + task_id, "unfinished", MAX_UNFINISHED)

    pipeline.run(task_id)

    assert (ended(task_id).state, ended(task_id).code) == (State.FAILED, "worker_lost")
    assert fake_redis.zcard(SLOTS + "example.org") == 0


def test_a_retry_of_a_lost_task_begins_anew(pipeline: Pipeline, uploads: Uploads, accept: Any, ended: Any) -> None:
    task_id = accept(upload_id=uploads.put(IMAGE))
    for _ in range(MAX_UNFINISHED):
        pipeline.ledger.begin(task_id)
    pipeline.run(task_id)

    pipeline.ledger.retry([task_id])
    pipeline.run(task_id)

    assert ended(task_id).state is State.SUCCEEDED


def test_a_task_without_a_free_decoder_stays_open(
    pipeline: Pipeline, uploads: Uploads, accept: Any, ended: Any
) -> None:
    task_id = accept(upload_id=uploads.put(IMAGE))

    class Busy:
        def decode(self, _data: bytes, *, outputs: Output = Output.SIGNATURES, client: str = "") -> NoReturn:  # noqa: ARG002
            raise Overloaded(f"no decoder was free in time{client}", retry_after=1)

    with pytest.raises(Overloaded):
        replace(pipeline, decoder=Busy()).run(task_id)

    assert ended(task_id).state is State.PENDING


def test_an_internal_error_reports_no_internals(
    pipeline: Pipeline, web: Web, accept: Any, ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_url: str) -> bytes:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(web, "fetch", broken)
    task_id = accept(url=URL)

    pipeline.run(task_id)

    task = ended(task_id)
    assert (task.state, task.code, task.error) == (State.FAILED, "internal_error", "internal error")


def counted(pipeline: Pipeline) -> set[str]:
    lines = generate_latest(pipeline.instrumentation.registry).decode().splitlines()
    return {line for line in lines if line.startswith("match_outcomes_total{") or "_seconds_count" in line}


def test_results_are_counted_by_state_and_code(pipeline: Pipeline, web: Web, accept: Any) -> None:
    web.pages[URL] = IMAGE
    good, bad = accept(url=URL), accept(url="http://example.org/gone.png")

    pipeline.run(good)
    pipeline.run(bad)

    assert counted(pipeline) == {
        'match_outcomes_total{outcome="succeeded",reason=""} 1.0',
        'match_outcomes_total{outcome="failed",reason="http_status"} 1.0',
        "match_download_seconds_count 2.0",
        "match_decode_seconds_count 1.0",
        "match_bulk_seconds_count 0.0",
    }


def test_a_task_to_be_redelivered_is_not_counted(pipeline: Pipeline, web: Web, accept: Any) -> None:
    web.pages[URL] = IMAGE
    task_id = accept(url=URL)
    memory_store = pipeline.writer._store
    memory_store.away = True  # type: ignore[attr-defined]

    with pytest.raises(StoreUnavailable):
        pipeline.run(task_id)

    assert not any(line.startswith("match_outcomes_total") for line in counted(pipeline))


def test_only_failures_are_logged(
    pipeline: Pipeline, web: Web, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    web.pages[URL] = IMAGE
    jobs = [AddItem(filepath="good", url=URL), AddItem(filepath="bad", url="http://example.org/gone.png?token=geheim")]
    good, bad = enqueue(ledger, jobs, context=RequestContext(request_id="r-1"))
    caplog.set_level("INFO")
    caplog.handler.setFormatter(formatter(Settings()))

    pipeline.run(good.id)
    pipeline.run(bad.id)

    [line] = [json.loads(line) for line in caplog.text.splitlines()]
    assert (line["level"], line["outcome"], line["code"]) == ("info", "failed", "http_status")
    assert (line["task_id"], line["request_id"]) == (bad.id, "r-1")
    assert "geheim" not in caplog.text


def test_a_redis_outage_requeues_the_message(
    pipeline: Pipeline, ledger: Ledger, accept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = accept(url=URL)

    def unanswered(_task_id: str) -> None:
        raise QueueUnavailable("Redis does not answer")

    monkeypatch.setattr(ledger, "begin", unanswered)

    with pytest.raises(QueueUnavailable):
        pipeline.run(task_id)


def test_failure_names_image_and_url_without_its_query(
    pipeline: Pipeline, accept: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "workers.pipeline")

    pipeline.run(accept("cats/1", url=f"{URL}?size=2&token=s3cret"))

    [line] = [entry.getMessage() for entry in caplog.records if entry.getMessage().startswith("failed")]
    assert line == f"failed: cats/1 ({URL}): example.org answered 404"
