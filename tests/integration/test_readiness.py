"""Readiness and metrics while a dependency is silent: both answer in time, and searches need no Redis."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from common.redis.client import connect
from common.store.base import Health
from dev.redis_server import RedisServer

WITHIN_S = 60


@contextmanager
def silent(redis: RedisServer) -> Iterator[None]:
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(redis.pid, signal.SIGCONT)


@pytest.fixture
def silent_store(memory_store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """A store whose health check blocks until the event is set."""
    may = Event()

    def health() -> Health:
        assert may.wait(WITHIN_S)
        return Health(reads=True, writes=True)

    monkeypatch.setattr(memory_store, "health", health)
    yield may
    may.set()


def gauges(client: FlaskClient) -> dict[str, float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    lines = [line.split() for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines if "{" not in name}


def test_silent_redis_is_reported_and_the_api_stays_ready(make_client: Any, redis_server: RedisServer) -> None:
    client = make_client(connect(redis_server.url))

    with silent(redis_server):
        alive, ready = client.get("/livez"), client.get("/readyz")
        seen = gauges(client)

    assert (alive.status_code, alive.json["status"]) == (200, "ok")
    assert (ready.status_code, ready.json["status"]) == (200, "warn")
    assert ready.json["error"] == ["redis: no answer within 2 s"]
    assert (seen["match_redis_up"], seen["match_store_up"]) == (0, 1)
    assert "match_tasks_open" not in seen


def test_queue_length_is_reported(make_client: Any, redis_server: RedisServer, real_redis: Redis) -> None:
    client = make_client(connect(redis_server.url))
    real_redis.lpush("match-batch", "message")
    before = gauges(client)

    after = client.get("/readyz")

    assert (before["match_redis_up"], before["match_tasks_open"]) == (1, 0)
    assert 'match_queue_length{queue="match-batch"} 1.0' in client.get("/metrics").text
    assert after.json["status"] == "ok"


def test_silent_store_is_not_ready_and_queue_metrics_remain(
    make_client: Any, redis_server: RedisServer, silent_store: Event
) -> None:
    client = make_client(connect(redis_server.url))

    ready, seen = client.get("/readyz"), gauges(client)

    assert (ready.status_code, ready.json["code"]) == (503, "not_ready")
    assert ready.json["error"] == ["searches are unavailable: no answer within 2 s"]
    assert ready.json["checks"]["redis"]["ok"] is True
    assert (seen["match_redis_up"], seen["match_store_up"]) == (1, 0)
    assert not silent_store.is_set()


def test_store_that_answers_again_is_ready(make_client: Any, redis_server: RedisServer, silent_store: Event) -> None:
    client = make_client(connect(redis_server.url))
    assert client.get("/readyz").status_code == 503

    silent_store.set()

    assert client.get("/readyz").status_code == 200
