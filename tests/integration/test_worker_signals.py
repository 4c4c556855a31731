"""What a worker's process tells beside its work: its metrics by HTTP, and that it lives."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic, sleep
from typing import Any

import pytest
import requests
from redis import Redis

from common.errors import QueueUnavailable
from common.queue.heartbeats import Heartbeats
from common.queue.keys import WORKERS
from workers.heartbeat import Heartbeat
from workers.metrics_server import MOST_AT_ONCE, MetricsServer, serve

WITHIN_S = 60
TEXT = b"# HELP match_downloads Downloads.\nmatch_downloads 1\n"


def wait_until(holds: Callable[[], Any]) -> None:
    deadline = monotonic() + WITHIN_S
    while not holds():
        assert monotonic() < deadline
        sleep(0.05)


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer(0, lambda: TEXT)
    yield server
    server.close()


def scrape(port: int, path: str = "/metrics") -> requests.Response:
    return requests.get(f"http://127.0.0.1:{port}{path}", timeout=30)


def test_metrics_are_served_and_nothing_else(server: MetricsServer) -> None:
    answer = scrape(server.port, "/metrics?name=x")

    assert (answer.status_code, answer.content) == (200, TEXT)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert answer.headers["Server"] == "match"
    assert scrape(server.port, "/").status_code == 404


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\n\r\n",
        b"G",
        b"",
    ],
)
def test_no_request_disturbs_it(server: MetricsServer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(sent)

    assert scrape(server.port).status_code == 200


def test_who_says_nothing_holds_few_threads_and_not_for_long(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._server.RequestHandlerClass, "timeout", 0.5)
    with ExitStack() as opened:
        for _ in range(3 * MOST_AT_ONCE):
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))

        wait_until(lambda: _answers(server.port))


def _answers(port: int) -> bool:
    try:
        return scrape(port).ok
    except requests.ConnectionError:
        return False


def test_a_port_that_is_taken_costs_the_metrics_alone(server: MetricsServer, caplog: pytest.LogCaptureFixture) -> None:
    assert serve(server.port, lambda: TEXT) is None
    assert f"no /metrics on port {server.port}" in caplog.text


def test_without_a_port_nothing_listens() -> None:
    assert serve(0, lambda: TEXT) is None


def test_a_worker_counts_from_its_start_to_its_end(real_redis: Redis) -> None:
    heart = Heartbeat(Heartbeats(real_redis))
    heart.start()
    wait_until(lambda: real_redis.zcard(WORKERS) == 1)

    heart.close()

    assert real_redis.zcard(WORKERS) == 0


def test_a_redis_that_forgot_hears_of_the_worker_again(real_redis: Redis) -> None:
    heart = Heartbeat(Heartbeats(real_redis), every_s=0.05)
    heart.start()
    wait_until(lambda: real_redis.zcard(WORKERS) == 1)

    real_redis.delete(WORKERS)

    wait_until(lambda: real_redis.zcard(WORKERS) == 1)
    heart.close()


class Away(Heartbeats):
    """A Redis that does not answer, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def beat(self, name: str) -> None:
        self.asked += 1
        raise QueueUnavailable(f"{name} is not heard")

    end = beat


def test_a_redis_that_is_away_does_not_end_the_beats() -> None:
    away = Away()
    heart = Heartbeat(away, every_s=0.01)

    heart.start()

    wait_until(lambda: away.asked >= 3)
    heart.close()
    assert not heart._thread.is_alive()
