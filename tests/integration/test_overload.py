"""A real server with more clients than threads: each is answered in time, with matches or with 503."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from dev.redis_server import RedisServer
from support.processes import ROOT, serving_api

THREADS = 4
# The timeout of common clients.
GIVE_UP_S = 20
IMAGE = (ROOT / "examples" / "images" / "chelsea.jpg").read_bytes()


@pytest.fixture(scope="module")
def url(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An API of one process with few threads."""
    environment = {"MATCH_API_THREADS": f"{THREADS}", "REDIS_URL": redis_server.url}
    with serving_api(tmp_path_factory.mktemp("api"), environment) as api:
        yield api.url


def test_many_searches_at_once_are_answered_or_refused(url: str) -> None:
    def search(_: int) -> requests.Response:
        return requests.post(f"{url}/search", files={"image": IMAGE}, timeout=GIVE_UP_S)

    with ThreadPoolExecutor(150) as pool:
        answers = list(pool.map(search, range(150)))

    assert {answer.status_code for answer in answers} == {200, 503}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 503} == {"overloaded"}


@pytest.mark.parametrize(("version", "status"), [("1.1", 400), ("1.0", 200)])
def test_host_is_required_by_http_1_1(url: str, version: str, status: int) -> None:
    host, _, port = url.removeprefix("http://").partition(":")

    with socket.create_connection((host, int(port)), timeout=GIVE_UP_S) as connection:
        connection.sendall(f"GET /ping HTTP/{version}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")

    assert int(head.split()[1]) == status
    assert json.loads(body).get("code") == (None if status == 200 else "bad_request")
