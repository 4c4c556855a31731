"""The API on its own: what it answers when what it needs is away, full or broken."""

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
from support.tasks import end
from support.waiting import wait_until

NOWHERE = "redis://127.0.0.1:1/0"


def add(client: FlaskClient, **fields: str) -> Any:
    return client.post("/add", data={"filepath": "cat.png", "image": upload(), **fields})


def test_an_add_is_accepted_and_told_where_its_task_is(client: FlaskClient) -> None:
    answer = add(client)

    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/tasks/{answer.json['task']['id']}"
    assert answer.json["result"] == []
    assert client.get(answer.headers["Location"]).json["result"][0]["state"] == "pending"


def test_without_redis_an_add_is_told_to_come_back_and_searches_go_on(make_client: Any) -> None:
    client = make_client(connect(NOWHERE))

    refused = add(client)
    found = client.post("/search", data={"image": upload()})
    ready = client.get("/readyz")

    assert (refused.status_code, refused.json["code"]) == (503, "queue_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert found.status_code == 200
    assert (ready.status_code, ready.json["status"], ready.json["checks"]["redis"]["ok"]) == (200, "warn", False)


def test_without_a_store_reads_are_told_to_come_back_and_adds_go_on(client: FlaskClient, memory_store: Any) -> None:
    memory_store.away = True

    answers = [client.get("/count"), client.get("/list"), client.delete("/delete", data={"filepath": "a"})]

    assert [(answer.status_code, answer.json["code"]) for answer in answers] == [(503, "store_unavailable")] * 3
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
    assert add(client).status_code == 202
    assert client.get("/readyz").status_code == 503
    assert client.get("/livez").status_code == 200


def test_a_store_that_takes_no_writes_is_told_and_goes_on_serving_searches(
    client: FlaskClient, memory_store: Any
) -> None:
    memory_store.read_only = True

    found = client.post("/search", data={"image": upload()})
    ready = client.get("/readyz")

    assert found.status_code == 200
    assert (ready.status_code, ready.json["status"]) == (200, "warn")
    assert ready.json["error"] == ["the store accepts no writes: read only"]


def test_a_broker_that_is_away_costs_no_accepted_work(make_client: Any, real_redis: Redis) -> None:
    client = make_client(real_redis, broker=NOWHERE)

    answer = add(client)

    assert answer.status_code == 202
    assert real_redis.zcard(OPEN) == 1


def test_a_backlog_that_is_full_takes_no_more_and_leaves_nothing_behind(make_client: Any, real_redis: Redis) -> None:
    client = make_client(real_redis, max_open=1)
    add(client)

    refused = add(client)

    assert (refused.status_code, refused.json["code"]) == (503, "overloaded")
    assert int(refused.headers["Retry-After"]) > 0
    assert len(list(real_redis.scan_iter(f"{UPLOAD}*"))) == 1


def test_a_redis_that_is_nearly_full_takes_no_more(make_client: Any, real_redis: Redis) -> None:
    used = int(real_redis.info("memory")["used_memory"])
    real_redis.config_set("maxmemory", used + used // 10)
    try:
        refused = add(make_client(real_redis))
    finally:
        real_redis.config_set("maxmemory", 0)

    assert (refused.status_code, refused.json["code"]) == (503, "overloaded")


def test_searches_beyond_the_gate_are_refused_quickly_and_a_ping_passes(make_client: Any, real_redis: Redis) -> None:
    client = make_client(real_redis, concurrency=1)
    closure = client.application.view_functions["search"].__closure__ or ()
    [held] = [cell.cell_contents for cell in closure if isinstance(cell.cell_contents, Services)]

    with held.search_limit.acquire():
        refused = client.post("/search", data={"image": upload()})
        ping = client.get("/ping")

    assert (refused.status_code, refused.json["code"]) == (503, "overloaded")
    assert ping.status_code == 200


def test_waiting_adds_take_no_place_from_searches(make_client: Any, real_redis: Redis) -> None:
    client = make_client(real_redis, concurrency=1)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(add, client, wait="1")
        found = client.post("/search", data={"image": upload()})

    assert found.status_code == 200
    assert waiting.result().status_code == 202


def test_an_add_beyond_those_that_may_wait_is_answered_at_once(make_client: Any, real_redis: Redis) -> None:
    client = make_client(real_redis, concurrency=1)

    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: add(client, wait="1"), range(4)))

    assert [answer.status_code for answer in answers] == [202] * 4


def test_what_is_stored_but_not_yet_sure_to_be_found_is_a_202(
    client: FlaskClient, memory_store: Any, real_redis: Redis
) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(add, client, wait="30")
        [task_id] = wait_for_open(real_redis)
        memory_store.away = True
        end(real_redis, task_id, State.SUCCEEDED)

    assert (waiting.result().status_code, waiting.result().json["task"]["state"]) == (202, "succeeded")


def test_a_fault_of_ours_is_no_fault_of_the_picture(client: FlaskClient, real_redis: Redis) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(add, client, wait="30")
        [task_id] = wait_for_open(real_redis)
        end(real_redis, task_id, State.FAILED, code="internal_error", error="broken")

    assert (waiting.result().status_code, "field" in waiting.result().json) == (500, False)


def test_a_redis_that_is_silent_holds_up_no_ping(make_client: Any, redis_server: RedisServer) -> None:
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


def wait_for_open(redis: Redis) -> list[str]:
    return [task_id.decode() for task_id in wait_until(lambda: redis.zrange(OPEN, 0, -1), "a task is open")]


def test_a_fault_tells_nothing_of_the_inside(
    client: FlaskClient, memory_store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> int:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(memory_store, "count", broken)

    answer = client.get("/count", headers={"X-Request-ID": "mine"})

    assert (answer.status_code, answer.json["code"], answer.json["method"]) == (500, "internal_error", "count")
    assert "secret" not in answer.text
    assert "request mine failed" in caplog.text


def test_a_wait_that_runs_out_answers_that_it_is_accepted(client: FlaskClient) -> None:
    answer = add(client, wait="0.2")

    assert (answer.status_code, answer.json["task"]["state"]) == (202, "pending")


def test_every_reply_is_json_with_the_four_keys(client: FlaskClient) -> None:
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
