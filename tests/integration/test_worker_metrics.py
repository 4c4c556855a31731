"""A worker's metrics over HTTP, and its heartbeat."""

import socket

import pytest
import requests
from redis import Redis

from common.errors import QueueUnavailable
from common.queue.heartbeats import Heartbeats
from common.queue.keys import WORKERS
from common.queue.tasks import State
from dev.ports import free_port
from support.waiting import wait_until
from workers.heartbeat import Heartbeat
from workers.instrumentation import Instrumentation

LOOPBACK = "127.0.0.1"
WITHIN_S = 60


def test_metrics_are_served_on_host_and_port() -> None:
    worker = Instrumentation()
    worker.count_finished(State.FAILED, "http_status")
    server = worker.serve(LOOPBACK, free_port())
    assert server is not None

    reply = requests.get(f"http://{LOOPBACK}:{server.server_port}/metrics", timeout=30)
    server.shutdown()
    server.server_close()

    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    assert 'match_outcomes_total{outcome="failed",reason="http_status"} 1.0' in reply.text.splitlines()


def test_port_in_use_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]

        server = Instrumentation().serve(LOOPBACK, port)

    assert server is None
    assert f"cannot serve /metrics on {LOOPBACK} port {port}: Address already in use" in caplog.text


def test_port_zero_serves_nothing() -> None:
    assert Instrumentation().serve(LOOPBACK, 0) is None


def test_worker_is_registered_from_start_to_close(real_redis: Redis) -> None:
    heartbeat = Heartbeat(Heartbeats(real_redis), "worker")
    heartbeat.start()
    wait_until(lambda: real_redis.zcard(WORKERS) == 1)

    heartbeat.close()

    assert real_redis.zcard(WORKERS) == 0


def test_worker_is_registered_again_after_redis_lost_it(real_redis: Redis) -> None:
    heartbeat = Heartbeat(Heartbeats(real_redis), "worker", every_s=0.05)
    heartbeat.start()
    wait_until(lambda: real_redis.zcard(WORKERS) == 1)

    real_redis.delete(WORKERS)

    wait_until(lambda: real_redis.zcard(WORKERS) == 1)
    heartbeat.close()


class UnavailableHeartbeats(Heartbeats):
    """Heartbeats to a Redis that does not answer; counts the attempts."""

    def __init__(self) -> None:
        self.attempts = 0

    def beat(self, name: str) -> None:
        self.attempts += 1
        raise QueueUnavailable(f"Redis did not answer {name}")

    end = beat


def test_heartbeat_survives_an_unavailable_redis() -> None:
    heartbeats = UnavailableHeartbeats()
    heartbeat = Heartbeat(heartbeats, "worker", every_s=0.01)

    heartbeat.start()

    wait_until(lambda: heartbeats.attempts >= 3)
    heartbeat.close()
    assert not heartbeat._thread.is_alive()
