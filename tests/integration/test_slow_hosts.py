"""Searches by URL whose hosts drip: a real server answers the other searches meanwhile."""

import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import pytest
import requests

from common.config import Settings
from dev.redis_server import RedisServer
from support.images import noise
from support.processes import Api, serving_api
from support.waiting import wait_until

DRIPS = 16
GIVE_UP_S = 60
# Of an API that would hold each slot for its whole time limit, if it could.
FETCH_TIMEOUT_S = 30
IMAGE = noise(1)


class DrippingHost:
    """A host that sends the head of an image, declared as large, and then a byte now and then."""

    def __init__(self, declared: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=99)
        self._declared = declared
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.is_closed = Event()
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.is_closed.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self.is_closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(4096)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {self._declared}\r\n\r\n".encode()
                connection.sendall(head + b"\x89PNG\r\n\x1a\n" + b"p" * 600)
                while not self.is_closed.wait(0.2):
                    connection.sendall(b"p")
            except OSError:
                return


@pytest.fixture
def host() -> Iterator[DrippingHost]:
    """A host that declares the largest image."""
    dripping = DrippingHost(Settings().max_image_bytes)
    yield dripping
    dripping.close()


@pytest.fixture
def api(redis_server: RedisServer, host: DrippingHost, tmp_path: Path) -> Iterator[Api]:
    """An API of one process that may fetch from the host."""
    environment = {
        "REDIS_URL": redis_server.url,
        "MATCH_FETCH_ALLOW": f"127.0.0.1:{host.port}",
        "MATCH_FETCH_TIMEOUT_S": f"{FETCH_TIMEOUT_S}",
    }
    with serving_api(tmp_path, environment) as running:
        yield running


def test_dripping_hosts_delay_no_other_search(api: Api, host: DrippingHost) -> None:
    def drip(number: int) -> int:
        path = "/compare" if number % 2 else "/search"
        url = f"http://127.0.0.1:{host.port}/image"
        form = {"url1": url, "filepath2": "none"} if number % 2 else {"url": url}
        return requests.post(api.url + path, data=form, timeout=GIVE_UP_S).status_code

    with ThreadPoolExecutor(DRIPS) as pool:
        drips = [pool.submit(drip, number) for number in range(DRIPS)]
        wait_until(lambda: host.connections >= 1, "a download began")
        others = Counter(
            requests.post(f"{api.url}/search", files={"image": IMAGE}, timeout=GIVE_UP_S).status_code for _ in range(20)
        )
        statuses = Counter(drip.result() for drip in drips)

    assert others == {200: 20}
    assert set(statuses) <= {422, 503}
    assert statuses[422] >= 1
