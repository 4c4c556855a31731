"""The API while Redis, the store or the broker is unavailable, full or broken."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.services import Services
from common.queue.keys import OPEN, UPLOAD
from common.queue.tasks import State
from common.redis.client import connect
from dev.redis_server import RedisServer
from support.images import upload
from support.tasks import end, wait_for_open

UNAVAILABLE_REDIS = "redis://127.0.0.1:1/0"


def add(client: FlaskClient, **fields: str) -> Any:
    return client.post("/add", data={"filepath": "cat.png", "image": upload(), **fields})


def test_accepted_add_reports_the_location_of_its_task(client: FlaskClient) -> None:
    answer = add(client)

    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/tasks/{answer.json['task']['id']}"
    assert answer.json["result"] == []
    assert client.get(answer.headers["Location"]).json["result"][0]["state"] == "pending"


def test_without_redis_adds_are_refused_and_searches_answered(make_client: Any) -> None:
    client = make_client(connect(UNAVAILABLE_REDIS))

    refused = add(client)
    search = client.post("/search", data={"image": upload()})
    ready = client.get("/readyz")

    assert (refused.status_code, refused.json["code"]) == (503, "queue_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert search.status_code == 200
    assert (ready.status_code, ready.json["status"], ready.json["checks"]["redis"]["ok"]) == (200, "warn", False)


def test_without_a_store_reads_are_refused_and_adds_accepted(client: FlaskClient, memory_store: Any) -> None:
    memory_store.away = True

    answers = [client.get("/count"), client.get("/list"), client.delete("/delete", data={"filepath": "a"})]

    assert [(answer.status_code, answer.json["code"]) for answer in answers] == [(503, "store_unavailable")] * 3
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
    assert add(client).status_code == 202
    assert client.get("/readyz").status_code == 503
    assert client.get("/livez").status_code == 200


def test_read_only_store_is_reported_and_serves_searches(client: FlaskClient, memory_store: Any) -> None:
    memory_store.read_only = True

    search = client.post("/search", data={"image": upload()})
    ready = client.get("/readyz")

    assert search.status_code == 200
    assert (ready.status_code, ready.json["status"]) == (200, "warn")
    assert ready.json["error"] == ["the store accepts no writes: read only"]


def test_unavailable_broker_loses_no_accepted_task(make_client: Any, real_redis: Redis) -> None:
    client = make_client(real_redis, broker=UNAVAILABLE_REDIS)

    answer = add(client)

    assert answer.status_code == 202
    assert real_redis.zcard(OPEN) == 1


def test_full_backlog_refuses_an_add_and_keeps_no_upload(make_client: Any, real_redis: Redis) -> None:
    client = make_client(real_redis, max_open=1)
    add(client)

    refused = add(client)

    assert (refused.status_code, refused.json["code"]) == (503, "overloaded")
    assert int(refused.headers["Retry-After"]) > 0
    assert len(list(real_redis.scan_iter(f"{UPLOAD}*"))) == 1


def test_nearly_full_redis_refuses_adds(make_client: Any, real_redis: Redis) -> None:
    used = int(real_redis.info("memory")["used_memory"])
    real_redis.config_set("maxmemory", used + used // 10)
    try:
        refused = add(make_client(real_redis))
    finally:
        real_redis.config_set("maxmemory", 0)

    assert (refused.status_code, refused.json["code"]) == (503, "overloaded")


def test_searches_beyond_the_limit_are_refused_and_pings_answered(make_client: Any, real_redis: Redis) -> None:
    client = make_client(real_redis, concurrency=1)
    closure = client.application.view_functions["search"].__closure__ or ()
    [services] = [cell.cell_contents for cell in closure if isinstance(cell.cell_contents, Services)]

    with services.search_images.search_slot(""):
        refused = client.post("/search", data={"image": upload()})
        ping = client.get("/ping")

    assert (refused.status_code, refused.json["code"]) == (503, "overloaded")
    assert ping.status_code == 200


def test_waiting_adds_do_not_count_as_searches(make_client: Any, real_redis: Redis) -> None:
    client = make_client(real_redis, concurrency=1)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(add, client, wait="1")
        search = client.post("/search", data={"image": upload()})

    assert search.status_code == 200
    assert waiting.result().status_code == 202


def test_adds_beyond_the_wait_limit_are_answered_at_once(make_client: Any, real_redis: Redis) -> None:
    client = make_client(real_redis, concurrency=1)

    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: add(client, wait="1"), range(4)))

    assert [answer.status_code for answer in answers] == [202] * 4


def test_stored_but_not_refreshed_add_is_a_202(client: FlaskClient, memory_store: Any, real_redis: Redis) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(add, client, wait="30")
        [task_id] = wait_for_open(real_redis)
        memory_store.away = True
        end(real_redis, task_id, State.SUCCEEDED)

    assert (waiting.result().status_code, waiting.result().json["task"]["state"]) == (202, "succeeded")


def test_internal_error_names_no_field(client: FlaskClient, real_redis: Redis) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(add, client, wait="30")
        [task_id] = wait_for_open(real_redis)
        end(real_redis, task_id, State.FAILED, code="internal_error", error="broken")

    assert (waiting.result().status_code, "field" in waiting.result().json) == (500, False)


def test_silent_redis_does_not_delay_pings(make_client: Any, redis_server: RedisServer) -> None:
    client = make_client(connect(redis_server.url))
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(8) as pool:
            adds = [pool.submit(add, client) for _ in range(8)]
            ping = client.get("/ping")
            refused = [answer.result() for answer in adds]
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)

    assert ping.status_code == 200
    assert {(answer.status_code, answer.json["code"]) for answer in refused} == {(503, "queue_unavailable")}


def test_internal_error_hides_its_cause(
    client: FlaskClient, memory_store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> int:
        raise RuntimeError("secret cause")

    monkeypatch.setattr(memory_store, "count", fail)

    answer = client.get("/count", headers={"X-Request-ID": "mine"})

    assert (answer.status_code, answer.json["code"], answer.json["method"]) == (500, "internal_error", "count")
    assert "secret" not in answer.text
    assert "request mine failed" in caplog.text


def test_expired_wait_is_answered_with_202(client: FlaskClient) -> None:
    answer = add(client, wait="0.2")

    assert (answer.status_code, answer.json["task"]["state"]) == (202, "pending")


def test_every_reply_is_json_in_the_envelope(client: FlaskClient) -> None:
    answers = [
        client.get("/ping"),
        client.get("/nowhere"),
        client.get("/tasks//retry"),
        client.get("/add"),
        client.post("/add"),
        client.get("/count"),
    ]

    for answer in answers:
        assert answer.mimetype == "application/json"
        assert {"status", "error", "method", "result"} <= answer.json.keys()
        assert answer.headers["X-Request-ID"]
