"""Many images in one request: each has an outcome of its own."""

import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.use_cases.add_images import AddImages
from api.use_cases.idempotency import IdempotencyKey
from api.use_cases.manage_collections import ManageCollections
from api.use_cases.wait_for_tasks import TaskWaiter
from common.byte_budget import ByteBudget
from common.errors import QueueUnavailable
from common.net.fetch import Fetcher
from common.queue.admission import Admission
from common.queue.host_limits import HostLimit
from common.queue.items import AddItem
from common.queue.jobs import BATCH_QUEUE, NO_REQUEST, SINGLE_QUEUE
from common.queue.keys import DEFERRED_BY_HOST, HOST, OPEN, TASK, UPLOAD
from common.queue.ledger import Ledger
from common.queue.publisher import Publisher
from common.queue.tasks import State
from common.redis.client import connect
from common.redis.clock import now_ms
from common.uploads import RedisUploads
from support.images import upload
from support.stores import MemoryStore
from support.tasks import end, wait_for_open

URL = "http://example.org/cat.jpg"
NDJSON = {"Content-Type": "application/x-ndjson"}
UNAVAILABLE_REDIS = "redis://127.0.0.1:1/0"


def by_url(*numbers: int) -> dict[str, Any]:
    return {f"urls[{number}]": URL for number in numbers} | {f"filepaths[{number}]": f"{number}" for number in numbers}


def add_many(client: FlaskClient, data: dict[str, Any]) -> Any:
    return client.post("/add", data=data)


def batch(client: FlaskClient, *lines: Any) -> list[dict[str, Any]]:
    body = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    answer = client.post("/add/batch", data=body, headers=NDJSON)
    assert (answer.status_code, answer.mimetype) == (200, "application/x-ndjson")
    return [json.loads(line) for line in answer.data.splitlines()]


def line(filepath: str, **fields: Any) -> dict[str, Any]:
    return {"url": URL, "filepath": filepath, **fields}


def jobs(redis: Redis, outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ledger's job and queue of each accepted item."""
    ids = [outcome["task"]["id"] for outcome in outcomes if "task" in outcome]
    rows = [redis.hmget(TASK + task_id, "job", "queue") for task_id in ids]
    return [json.loads(job) | {"queue": queue.decode()} for job, queue in rows]


def test_many_images_are_added_by_one_request(client: FlaskClient, real_redis: Redis) -> None:
    data = by_url(0, 2) | {"images[1]": upload(), "filepaths[1]": "one", "metadata[1]": '{"album": "cats"}'}

    answer = add_many(client, data)

    assert (answer.status_code, answer.json["status"], answer.json["error"]) == (202, "ok", [])
    assert [(one["item"], one["status"], one["error"]) for one in answer.json["result"]] == [
        (number, "ok", []) for number in range(3)
    ]
    kept = jobs(real_redis, answer.json["result"])
    assert [(job["filepath"], job["url"], job["metadata"], job["queue"]) for job in kept] == [
        ("0", URL, None, SINGLE_QUEUE),
        ("one", None, {"album": "cats"}, SINGLE_QUEUE),
        ("2", URL, None, SINGLE_QUEUE),
    ]
    assert [real_redis.ttl(UPLOAD + job["upload"]) for job in kept if job["upload"]] == [-1]


def test_host_limit_ignores_the_spelling_of_the_url(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    client = make_client(real_redis, host_limit=HostLimit(slots=1, lease_s=20))

    answer = client.post("/add", data={"url": "http://Busy.Example.:80/a.jpg", "filepath": "a"})

    assert real_redis.hget(TASK + answer.json["task"]["id"], "host") == b"busy.example"


@pytest.mark.parametrize(
    ("wrong", "field", "code"),
    [
        ({"filepaths[1]": "a\nb", "urls[1]": URL}, "filepaths[1]", "wrong_parameter"),
        ({"urls[1]": URL}, "filepaths[1]", "missing_parameter"),
        ({"filepaths[1]": "a"}, "images[1]", "missing_parameter"),
        ({"filepaths[1]": "a", "urls[1]": "http://127.0.0.1/"}, "urls[1]", "private_address"),
        ({"filepaths[1]": "a", "urls[1]": URL, "images[1]": upload()}, "urls[1]", "wrong_parameter"),
        ({"filepaths[1]": "a", "images[1]": (io.BytesIO(b"text"), "a")}, "images[1]", "not_an_image"),
        ({"filepaths[1]": "a", "images[1]": (io.BytesIO(b"x" * 100_001), "a")}, "images[1]", "too_large"),
        ({"filepaths[1]": "a", "urls[1]": URL, "metadata[1]": "[]"}, "metadata[1]", "wrong_parameter"),
    ],
)
def test_one_bad_item_does_not_fail_the_others(
    client: FlaskClient, wrong: dict[str, Any], field: str, code: str
) -> None:
    answer = add_many(client, by_url(0, 2) | wrong)

    assert (answer.status_code, answer.json["status"]) == (202, "warn")
    first, bad, last = answer.json["result"]
    assert (first["status"], last["status"]) == ("ok", "ok")
    assert (bad["item"], bad["status"], bad["field"], bad["code"]) == (1, "fail", field, code)
    assert answer.json["error"] == [f"item 1: {bad['error'][0]}"]


def test_item_error_names_the_parameters_of_the_item(client: FlaskClient) -> None:
    twice = {"filepaths[1]": "b", "urls[1]": URL, "images[1]": upload()}

    answer = add_many(client, {"filepaths[0]": "a", **twice})

    assert [one["error"] for one in answer.json["result"]] == [
        ["images[0] or urls[0] is required"],
        ["urls[1] and images[1] are mutually exclusive"],
    ]


def test_request_fails_when_no_item_is_accepted(client: FlaskClient) -> None:
    data = {"filepaths[0]": "a", "filepaths[1]": "b", "images[1]": (io.BytesIO(b"text"), "a")}

    answer = add_many(client, data)

    assert (answer.status_code, answer.json["status"], answer.json["code"]) == (422, "fail", "not_an_image")
    assert [one["code"] for one in answer.json["result"]] == ["missing_parameter", "not_an_image"]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (by_url(100), "filepaths[100]"),
        (by_url(0) | {"filepath": "a"}, "filepath"),
        (by_url(0) | {"pictures[0]": "a"}, "pictures[0]"),
        (by_url(0) | {"wait": "soon"}, "wait"),
    ],
)
def test_wrong_request_is_refused_before_any_item_is_accepted(
    client: FlaskClient, real_redis: Redis, data: dict[str, str], field: str
) -> None:
    answer = add_many(client, data)

    assert (answer.status_code, answer.json["field"], answer.json["result"]) == (400, field, [])
    assert real_redis.zcard(OPEN) == 0


def test_hundred_items_with_metadata_are_accepted(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    client = make_client(real_redis, max_open=1000)
    data = by_url(*range(100)) | {f"metadata[{number}]": json.dumps({"x": "y" * 1000}) for number in range(100)}

    answer = client.post("/add", data=data, content_type="multipart/form-data")

    assert [one["status"] for one in answer.json["result"]] == ["ok"] * 100


def test_items_beyond_the_backlog_are_refused_with_retry_after(client: FlaskClient, real_redis: Redis) -> None:
    data = {f"images[{number}]": upload() for number in range(13)}

    answer = add_many(client, data | {f"filepaths[{number}]": f"{number}" for number in range(13)})

    assert (answer.status_code, answer.json["status"]) == (202, "warn")
    accepted, refused = answer.json["result"][:10], answer.json["result"][10:]
    assert [one["status"] for one in accepted] == ["ok"] * 10
    assert {(one["code"], one["retry_after"] > 0) for one in refused} == {("overloaded", True)}
    assert len(list(real_redis.scan_iter(f"{UPLOAD}*"))) == 10


def test_adds_from_an_overloaded_host_are_rejected(client: FlaskClient, real_redis: Redis) -> None:
    real_redis.hset(DEFERRED_BY_HOST, "example.org", 1)
    real_redis.hset(HOST + "example.org", "until", f"{now_ms(real_redis) + 60_000}")

    outcomes = batch(client, line("a"), {"url": "http://other.example/b", "filepath": "b"})

    assert [one["status"] for one in outcomes] == ["fail", "ok"]
    assert outcomes[0]["code"] == "host_unavailable"
    assert 50 < outcomes[0]["retry_after"] <= 60


def test_items_without_redis_are_refused_with_retry_after(make_client: Callable[..., FlaskClient]) -> None:
    answer = add_many(make_client(connect(UNAVAILABLE_REDIS)), by_url(0, 1))

    assert (answer.status_code, answer.json["code"]) == (503, "queue_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_one_wait_covers_all_items(client: FlaskClient, real_redis: Redis) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(add_many, client, by_url(0, 1, 2) | {"wait": "30"})
        first, second, third = wait_for_open(real_redis, 3)
        end(real_redis, first, State.SUCCEEDED)
        end(real_redis, second, State.FAILED, code="http_status", error="404")
        end(real_redis, third, State.SUPERSEDED)

    answer = waiting.result()
    assert (answer.status_code, answer.json["status"], len(answer.json["error"])) == (200, "warn", 2)
    assert [(one["status"], one["task"]["state"]) for one in answer.json["result"]] == [
        ("ok", "succeeded"),
        ("fail", "failed"),
        ("warn", "superseded"),
    ]
    assert answer.json["result"][1]["field"] == "urls[1]"


def test_image_without_features_is_a_warning(client: FlaskClient, real_redis: Redis) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.post, "/add", data={"url": URL, "filepath": "plain", "wait": "20"})
        [task_id] = wait_for_open(real_redis)
        end(real_redis, task_id, warning="featureless")

    answer = waiting.result()
    assert (answer.status_code, answer.json["status"], answer.json["code"]) == (200, "warn", "featureless")
    assert answer.json["error"] == [answer.json["task"]["warning"]["message"]]
    assert (answer.json["task"]["state"], answer.json["task"]["error"]) == ("succeeded", None)
    [task] = client.get(f"/tasks/{task_id}").json["result"]
    assert task == answer.json["task"]


def test_one_item_without_features_warns_for_its_request(client: FlaskClient, real_redis: Redis) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(add_many, client, by_url(0, 1) | {"wait": "20"})
        first, second = wait_for_open(real_redis, 2)
        end(real_redis, first)
        end(real_redis, second, warning="featureless")

    answer = waiting.result()
    assert (answer.status_code, answer.json["status"]) == (200, "warn")
    assert [(one["status"], one.get("code")) for one in answer.json["result"]] == [
        ("ok", None),
        ("warn", "featureless"),
    ]
    assert answer.json["error"] == [f"item 1: {answer.json['result'][1]['error'][0]}"]


def test_expired_wait_reports_the_items_that_ended(client: FlaskClient, real_redis: Redis) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(add_many, client, by_url(0, 1) | {"wait": "0.5"})
        _, second = wait_for_open(real_redis, 2)
        end(real_redis, second, State.SUCCEEDED)

    answer = waiting.result()
    assert answer.status_code == 202
    assert [one["task"]["state"] for one in answer.json["result"]] == ["pending", "succeeded"]


@pytest.mark.parametrize("preferences", ["wait=20", 'respond-async, Wait = "20"', 'x="a, b", wait=20'])
def test_preferred_wait_ends_with_the_task(client: FlaskClient, real_redis: Redis, preferences: str) -> None:
    data = {"url": URL, "filepath": "a"}
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.post, "/add", data=data, headers={"Prefer": preferences})
        [task_id] = wait_for_open(real_redis)
        end(real_redis, task_id)

    answer = waiting.result()
    assert (answer.status_code, answer.json["task"]["state"]) == (200, "succeeded")


@pytest.mark.parametrize("preferences", ['wait="1', "wait=soon", "wait=-1", "x=wait=20"])
def test_invalid_preference_does_not_wait(client: FlaskClient, preferences: str) -> None:
    answer = client.post("/add", data={"url": URL, "filepath": "a"}, headers={"Prefer": preferences})

    assert (answer.status_code, answer.json["task"]["state"]) == (202, "pending")


def test_wait_of_zero_overrides_the_preferred_wait(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait_each(*_: Any, **__: Any) -> None:
        raise AssertionError("the request waited")

    monkeypatch.setattr(TaskWaiter, "wait_each", wait_each)
    data = {"url": URL, "filepath": "a", "wait": "0"}

    answer = client.post("/add", data=data, headers={"Prefer": "wait=20"})

    assert (answer.status_code, answer.json["task"]["state"]) == (202, "pending")


def test_items_that_are_not_accepted_release_their_bytes() -> None:
    redis = connect(UNAVAILABLE_REDIS)
    admission = Admission(redis, max_percent=80)
    ledger = Ledger(redis, max_open=1, finished_keep_s=1, failed_keep_s=1)
    uploads = RedisUploads(redis, admission=admission, max_bytes=1)
    items = [AddItem(filepath="a", data=b"an upload")]

    with Fetcher(max_bytes=1, timeout_s=1) as fetcher:
        publisher = Publisher(UNAVAILABLE_REDIS)
        collections = ManageCollections(MemoryStore(), ledger, publisher, max_collections=1)
        budget = ByteBudget(1, wait_s=1)
        add_images = AddImages(admission, ledger, uploads, publisher, collections, fetcher, budget)
        [item] = add_images.enqueue(items, NO_REQUEST, queue=SINGLE_QUEUE, key=IdempotencyKey("a key"), numbers=[0])

    assert isinstance(item.error, QueueUnavailable)
    assert item.data is None


def test_lines_are_added_in_order_with_an_outcome_each(client: FlaskClient, real_redis: Redis) -> None:
    outcomes = batch(client, line("a", metadata={"album": "cats"}), b"", line("b"))

    assert [(one["line"], one["status"], one["task"]["filepath"]) for one in outcomes] == [
        (1, "ok", "a"),
        (3, "ok", "b"),
    ]
    kept = jobs(real_redis, outcomes)
    assert [(job["filepath"], job["metadata"], job["queue"]) for job in kept] == [
        ("a", {"album": "cats"}, BATCH_QUEUE),
        ("b", None, BATCH_QUEUE),
    ]
    seqs = [int(real_redis.hget(TASK + one["task"]["id"], "seq") or 0) for one in outcomes]
    assert seqs == sorted(seqs)


@pytest.mark.parametrize(
    ("wrong", "field", "code"),
    [
        (b"{", "line", "wrong_parameter"),
        (b"[]", "line", "wrong_parameter"),
        (b"\xff", "line", "wrong_parameter"),
        (b"[" * 100_000, "line", "wrong_parameter"),
        (b'"' + b"x" * 600_000 + b'"', "line", "line_too_long"),
        ({"url": URL}, "filepath", "missing_parameter"),
        ({"filepath": "a"}, "url", "missing_parameter"),
        (line("a", urls=URL), "urls", "unknown_parameter"),
        (line("a", **{"\ud800": 1}), "?", "unknown_parameter"),
        (b'{"\\udfff' + b"x" * 200 + b'": {"\\ud800": "\\ud800"}}', "?" + "x" * 79, "unknown_parameter"),
        (line("a\nb"), "filepath", "wrong_parameter"),
        (line("\ud800"), "filepath", "wrong_parameter"),
        ({"url": "http://example.org/\ud800", "filepath": "a"}, "url", "wrong_parameter"),
        ({"url": 7, "filepath": "a"}, "url", "wrong_parameter"),
        ({"url": " ", "filepath": "a"}, "url", "wrong_parameter"),
        ({"url": "file:///etc/passwd", "filepath": "a"}, "url", "forbidden_scheme"),
        ({"url": "http://192.0.2.1/", "filepath": "a"}, "url", "private_address"),
        (line("a", metadata="{}"), "metadata", "wrong_parameter"),
        (line("a", metadata={"x": "y" * 9000}), "metadata", "wrong_parameter"),
        (line("a", metadata={f"{number}": "y" * 8000 for number in range(9)}), "metadata", "wrong_parameter"),
        (b'{"url": "http://example.org/", "filepath": "a", "metadata": {"a": 1e999}}', "metadata", "wrong_parameter"),
        (line("a", metadata={"x": float("nan")}), "metadata", "wrong_parameter"),
        (line("a", metadata={"x": [[1, float("nan")]]}), "metadata", "wrong_parameter"),
        (line("a", metadata={"x": [{"y": float("-inf")}]}), "metadata", "wrong_parameter"),
    ],
)
def test_wrong_line_does_not_fail_the_others(client: FlaskClient, wrong: Any, field: str, code: str) -> None:
    first, bad, last = batch(client, line("first"), wrong, line("last"))

    assert (first["status"], last["status"]) == ("ok", "ok")
    assert (bad["line"], bad["status"], bad["field"], bad["code"]) == (2, "fail", field, code)
    assert len(bad["error"]) == 1


def test_lines_beyond_the_backlog_are_refused_with_retry_after(client: FlaskClient, real_redis: Redis) -> None:
    outcomes = batch(client, *[line(f"{number}") for number in range(25)])

    assert [one["status"] for one in outcomes] == ["ok"] * 10 + ["fail"] * 15
    assert {(one["code"], one["retry_after"] > 0) for one in outcomes[10:]} == {("overloaded", True)}
    assert real_redis.zcard(OPEN) == 10


def test_lines_without_redis_are_refused_with_retry_after(make_client: Callable[..., FlaskClient]) -> None:
    outcomes = batch(make_client(connect(UNAVAILABLE_REDIS)), line("a"), line("b"))

    assert {(one["code"], one["retry_after"] > 0) for one in outcomes} == {("queue_unavailable", True)}


def test_lines_beyond_the_limit_are_refused(
    make_client: Callable[..., FlaskClient], real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.routes.batch.LINES", 3)

    outcomes = batch(make_client(real_redis), *[line(f"{number}") for number in range(6)])

    assert [(one["line"], one["status"]) for one in outcomes] == [(1, "ok"), (2, "ok"), (3, "ok"), (4, "fail")]
    assert outcomes[-1]["code"] == "too_many_lines"
    assert real_redis.zcard(OPEN) == 3


def test_internal_error_of_a_line_hides_its_cause(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret cause")

    monkeypatch.setattr("api.routes.batch.outcome_of", fail)

    [outcome] = batch(client, line("a"))

    assert (outcome["line"], outcome["code"]) == (1, "internal_error")
    assert "secret" not in str(outcome)
    assert "secret cause" in caplog.text


@pytest.mark.parametrize(
    ("options", "status", "field"),
    [
        ({"json": {}}, 415, "Content-Type"),
        ({"data": {"url": URL}}, 415, "Content-Type"),
        ({"data": b"\x1f\x8b", "headers": NDJSON | {"Content-Encoding": "gzip"}}, 415, "Content-Encoding"),
        ({"data": b"", "headers": NDJSON, "query_string": {"wait": "1"}}, 400, "wait"),
    ],
)
def test_body_that_is_not_ndjson_is_refused(
    client: FlaskClient, options: dict[str, Any], status: int, field: str
) -> None:
    answer = client.post("/add/batch", **options)

    assert (answer.status_code, answer.json["field"], answer.json["method"]) == (status, field, "batch")


def test_batches_beyond_the_limit_are_refused_until_one_ends(
    make_client: Callable[..., FlaskClient], real_redis: Redis
) -> None:
    client = make_client(real_redis, concurrency=1)
    unread = client.post("/add/batch", data=b"", headers=NDJSON, buffered=False)

    refused = client.post("/add/batch", data=b"", headers=NDJSON)
    unread.close()
    accepted = client.post("/add/batch", data=b"", headers=NDJSON)

    assert (refused.status_code, refused.json["code"]) == (503, "overloaded")
    assert accepted.status_code == 200
