"""Batches of lines against a real server: large ones, malformed bodies, and clients that disconnect."""

import json
import socket
import sys
from base64 import b64decode
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis

from common.queue.jobs import BATCH_QUEUE
from common.queue.keys import OPEN
from dev.redis_server import RedisServer
from support.processes import Api, serving_api
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
MANY = 50_000
# The margin of Python and its libraries. The request has ten times as many bytes, its outcomes forty times.
GROWTH_KB = 24_000


@pytest.fixture(scope="module")
def served(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    with serving_api(folder, {"REDIS_URL": redis_server.url, "MATCH_API_THREADS": "8"}) as api:
        yield api


@pytest.fixture
def api(served: Api, real_redis: Redis) -> Api:
    """The API without open tasks."""
    assert real_redis.zcard(OPEN) == 0
    return served


def most_memory_kb(api: Api) -> int:
    """Return the peak memory of the serving process."""
    [child] = Path(f"/proc/{api.pid}/task/{api.pid}/children").read_text().split()
    lines = Path(f"/proc/{child}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def connect(api: Api) -> socket.socket:
    return socket.create_connection(("127.0.0.1", api.port), timeout=30)


def sent(redis: Redis) -> set[str]:
    """Return the tasks in the queue's messages; a message has one task or a list of them."""
    bodies = [b64decode(json.loads(message)["body"]) for message in redis.lrange(BATCH_QUEUE, 0, -1)]
    ids = [json.loads(body)[0][0] for body in bodies]
    return {task for tasks in ids for task in (tasks if isinstance(tasks, list) else [tasks])}


def line(number: int) -> bytes:
    return json.dumps({"url": f"http://example.org/{number}.jpg", "filepath": f"{number}"}).encode() + b"\n"


def lines(count: int) -> Iterator[bytes]:
    yield from (line(number) for number in range(count))


def post(api: Api, body: Any) -> requests.Response:
    headers = {"Content-Type": "application/x-ndjson"}
    return requests.post(f"{api.url}/add/batch", data=body, headers=headers, stream=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_batch_of_50_000_lines_needs_little_memory(api: Api, real_redis: Redis) -> None:
    post(api, lines(1000)).content  # noqa: B018 - the first request loads what every later one needs
    real_redis.flushall()
    before = most_memory_kb(api)

    with post(api, lines(MANY)) as answer:
        texts = list(answer.iter_lines())
    outcomes = [json.loads(text) for text in texts]

    assert [outcome["line"] for outcome in outcomes] == list(range(1, MANY + 1))
    assert {outcome["status"] for outcome in outcomes} == {"ok"}
    assert int(answer.headers["Content-Length"]) == sum(len(text) + 1 for text in texts)
    assert real_redis.zcard(OPEN) == len(sent(real_redis)) == MANY
    assert most_memory_kb(api) - before < GROWTH_KB


def test_accepted_lines_stay_when_the_client_vanishes(api: Api, real_redis: Redis) -> None:
    with connect(api) as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + chunk(b"".join(lines(5000)) + b'{"url": "htt'))
        wait_until(lambda: real_redis.zcard(OPEN) > 0)

    # The API serves one batch at a time: the next one is accepted when the server notices the disconnect.
    wait_until(lambda: post(api, line(0)).status_code == 200)
    assert 1 < real_redis.zcard(OPEN) == len(sent(real_redis)) <= 5001


def test_body_that_ends_early_is_reported_after_its_lines(api: Api) -> None:
    with connect(api) as connection:
        connection.sendall(head("Content-Length: 1000000") + line(0) + line(1) + line(2)[:-2])
        connection.shutdown(socket.SHUT_WR)
        reply = HTTPResponse(connection)
        reply.begin()
        outcomes = [json.loads(text) for text in reply]

    assert [(outcome["line"], outcome["status"]) for outcome in outcomes] == [(1, "ok"), (2, "ok"), (3, "fail")]
    assert outcomes[-1]["code"] == "truncated_body"


@pytest.mark.parametrize("malformed", [b"zz\r\n", b"0\r\nno trailer\r\n\r\n", b"5\r\n12345xx"])
def test_malformed_chunks_are_reported(api: Api, malformed: bytes) -> None:
    with connect(api) as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + chunk(line(0)) + malformed)
        connection.shutdown(socket.SHUT_WR)
        reply = HTTPResponse(connection)
        reply.begin()
        outcomes = [json.loads(text) for text in reply]

    assert reply.status == 200
    assert outcomes[-1]["code"] == "truncated_body"


def head(framing: str) -> bytes:
    return f"POST /add/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n{framing}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
