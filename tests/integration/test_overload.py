"""A real server with more clients than threads: each is answered in time, with a result or a refusal."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from dev.ports import free_port
from dev.redis_server import RedisServer
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
THREADS = 4
# Usual clients give up after that time.
GIVE_UP_S = 20
PICTURE = (ROOT / "examples" / "images" / "chelsea.jpg").read_bytes()


@pytest.fixture(scope="module")
def url(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An API of one process with few threads."""
    folder = tmp_path_factory.mktemp("api")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PORT": f"{port}",
        "MATCH_API_HOST": "127.0.0.1",
        "WORKER_COUNT": "1",
        "MATCH_API_THREADS": f"{THREADS}",
        "REDIS_URL": redis_server.url,
        "MATCH_STORE_URL": f"sqlite:///{folder}/match.db",
    }
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "api"], cwd=ROOT, env=os.environ | environment, stderr=log, stdout=log
        ) as process,
    ):
        wait_until(lambda: answers(url))
        yield url
        process.terminate()
        process.wait(90)


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/ping", timeout=GIVE_UP_S).ok
    except requests.RequestException:
        return False


def test_many_searches_at_once_are_answered_or_refused(url: str) -> None:
    def search(_: int) -> requests.Response:
        return requests.post(f"{url}/search", files={"image": PICTURE}, timeout=GIVE_UP_S)

    with ThreadPoolExecutor(150) as pool:
        answers = list(pool.map(search, range(150)))

    assert {answer.status_code for answer in answers} == {200, 503}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 503} == {"overloaded"}
