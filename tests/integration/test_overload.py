"""A real server with more clients than threads: each is answered in time, be it with a refusal."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import requests
from gunicorn.config import Config

from api.server.worker import Worker
from dev.ports import free_port
from dev.redis_server import RedisServer
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
THREADS = 4
# Whoever is not answered by then would have given up.
GIVE_UP_S = 20
PICTURE = (ROOT / "examples" / "images" / "chelsea.jpg").read_bytes()
HALF = (
    b"POST /add HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\na=b"
)
# A request to this path keeps its thread as long as there is a file.
HELD = """
from pathlib import Path
from time import sleep
import api.__main__ as door

load = door.Server.load

def held(server):
    app = load(server)

    def answer(environ, start_response):
        while environ["PATH_INFO"] == "/livez" and Path("HOLD").exists():
            sleep(0.01)
        return app(environ, start_response)

    return answer

door.Server.load = held
door.main()
"""


class Api:
    """A running API of one process with few threads; `hold` keeps all of them busy."""

    def __init__(self, port: int, hold: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._hold = hold

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=GIVE_UP_S)

    def answers(self) -> bool:
        try:
            return self.get("/ping").ok
        except requests.RequestException:
            return False

    @contextmanager
    def busy(self) -> Iterator[None]:
        with ThreadPoolExecutor(THREADS) as pool:
            self._hold.touch()
            try:
                for _ in range(THREADS):
                    pool.submit(requests.get, f"{self.url}/livez", timeout=60)
                wait_until(lambda: not self.answers())
                yield
            finally:
                self._hold.unlink()


@pytest.fixture(scope="module")
def api(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    port = free_port()
    environment = {
        "PORT": f"{port}",
        "MATCH_API_HOST": "127.0.0.1",
        "WORKER_COUNT": "1",
        "MATCH_API_THREADS": f"{THREADS}",
        "REDIS_URL": redis_server.url,
        "MATCH_STORE_URL": f"sqlite:///{folder}/match.db",
        "PYTHONPATH": f"{ROOT}",
    }
    code = HELD.replace("HOLD", f"{folder / 'hold'}")
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, stderr=log, stdout=log
        ) as process,
    ):
        started = Api(port, folder / "hold")
        wait_until(started.answers)
        yield started
        process.terminate()
        process.wait(90)


class Exhausted:
    """A listener whose process has no descriptor left."""

    def __init__(self, number: int) -> None:
        self._number = number

    def accept(self) -> NoReturn:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN])
def test_a_connection_that_cannot_be_taken_ends_no_process(number: int) -> None:
    worker = Worker(0, 0, [], None, 30, Config(), None)
    try:
        worker.accept(Exhausted(number))  # type: ignore[arg-type]  # it does what is asked of a listener

        assert worker.nr_conns == 0
    finally:
        worker.tmp.close()


def test_what_no_thread_takes_is_refused_until_there_are_threads_again(api: Api) -> None:
    with api.busy(), ThreadPoolExecutor(100) as pool:
        refused = list(pool.map(api.get, ["/ping"] * 100))

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "overloaded")}
    assert all(int(answer.headers["Retry-After"]) > 0 and answer.headers["X-Request-ID"] for answer in refused)
    wait_until(api.answers)


def test_a_refused_upload_is_told_so(api: Api) -> None:
    with api.busy():
        refused = requests.post(f"{api.url}/search", files={"image": PICTURE + bytes(500_000)}, timeout=GIVE_UP_S)

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")


def test_many_searches_at_once_are_answered_or_refused(api: Api) -> None:
    wait_until(api.answers)

    def search(_: int) -> requests.Response:
        return requests.post(f"{api.url}/search", files={"image": PICTURE}, timeout=GIVE_UP_S)

    with ThreadPoolExecutor(150) as pool:
        answers = list(pool.map(search, range(150)))

    assert {answer.status_code for answer in answers} == {200, 503}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 503} == {"overloaded"}
