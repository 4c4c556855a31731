"""A Redis with little memory: adds are refused in time, other requests work, and accepted tasks are stored."""

import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from redis import Redis
from redis.exceptions import OutOfMemoryError

from common.config import Settings
from common.queue.stats import read_stats
from common.queue.tasks import State
from common.wiring import Dependencies, build_dependencies
from dev.redis_server import RedisServer
from support.images import encode
from support.processes import running, serving_api
from support.tasks import fail, task_of
from support.waiting import wait_until

START = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def small_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", maxmemory="20mb") as server:
        yield server


@pytest.fixture
def environment(small_redis: RedisServer, tmp_path: Path) -> dict[str, str]:
    return {
        "REDIS_URL": small_redis.url,
        "MATCH_STORE_URL": f"sqlite:///{tmp_path / 'match.db'}",
        "WORKER_COUNT": "2",
        "MATCH_API_THREADS": "8",
        "MATCH_WORKER_THREADS": "8",
        # Lost messages are noticed soon.
        "MATCH_VISIBILITY_TIMEOUT_S": "6",
        "MATCH_FETCH_TIMEOUT_S": "1",
        "MATCH_DECODE_TIMEOUT_S": "1",
        "MATCH_STORE_HOLD_S": "2",
    }


@pytest.fixture
def start_worker(environment: dict[str, str], tmp_path: Path) -> Iterator[START]:
    with ExitStack() as started:
        yield lambda: started.enter_context(
            running("-m", "workers", environment=environment, log=tmp_path / "workers.log")
        )


@pytest.fixture
def parts(environment: dict[str, str]) -> Iterator[Dependencies]:
    parts = build_dependencies(Settings.from_env(environment))
    parts.store.prepare()
    yield parts
    parts.close()


@pytest.fixture
def url(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    with serving_api(tmp_path, environment) as api:
        yield api.url


def image(number: int) -> bytes:
    """Return a PNG of about 50 KB."""
    return encode(Image.frombytes("RGB", (130, 130), random.Random(number).randbytes(130 * 130 * 3)))


def add(url: str, number: int) -> requests.Response:
    return requests.post(f"{url}/add", data={"filepath": f"{number:03}"}, files={"image": image(number)}, timeout=30)


def fill(url: str) -> tuple[list[str], requests.Response]:
    """Add until an add is refused; return the ids of the accepted tasks, and the refusing response."""
    accepted: list[str] = []
    while (answer := add(url, len(accepted))).ok:
        accepted.append(answer.json()["task"]["id"])
        assert len(accepted) < 1000
    return accepted, answer


def other_requests(url: str, *, cancel: str, retry: str) -> dict[str, int]:
    calls: dict[str, tuple[str, str, dict[str, Any]]] = {
        "search": ("POST", "/search", {"files": {"image": image(1)}}),
        "list": ("GET", "/list", {}),
        "task": ("GET", f"/tasks/{cancel}", {}),
        "delete": ("DELETE", "/delete", {"data": {"filepath": "other"}}),
        "retry": ("POST", f"/tasks/{retry}/retry", {}),
        "cancel": ("DELETE", f"/tasks/{cancel}", {}),
    }
    return {
        name: requests.request(method, url + path, timeout=30, **options).status_code
        for name, (method, path, options) in calls.items()
    }


def test_adds_are_refused_until_redis_has_memory_again(url: str, parts: Dependencies, start_worker: START) -> None:
    accepted, refused = fill(url)
    memory = parts.redis.info("memory")
    fail(parts.ledger, accepted[1])
    statuses = other_requests(url, cancel=accepted[0], retry=accepted[1])

    start_worker()
    wait_until(lambda: read_stats(parts.redis).open == 0, "the backlog is empty")
    wait_until(lambda: add(url, 999).ok, "adds are accepted again")
    wait_until(lambda: read_stats(parts.redis).open == 0, "the last add is stored")

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert int(refused.headers["Retry-After"]) > 0
    assert memory["used_memory"] < 0.9 * memory["maxmemory"]
    assert set(statuses.values()) <= {200, 202}, statuses
    assert {task_of(parts.ledger, task_id).state for task_id in accepted[1:]} == {State.SUCCEEDED}
    assert parts.store.count() == len(accepted)


def test_workers_empty_a_completely_full_redis(url: str, parts: Dependencies, start_worker: START) -> None:
    accepted = [add(url, number).json()["task"]["id"] for number in range(60)]
    fail(parts.ledger, accepted[1])
    fill_up(parts.redis)
    refused = add(url, 100)
    statuses = other_requests(url, cancel=accepted[0], retry=accepted[1])
    fill_up(parts.redis)

    worker = start_worker()
    wait_until(lambda: parts.store.count() == len(accepted) - 1, "all accepted tasks are stored")

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert set(statuses.values()) <= {200, 202}, statuses
    assert worker.poll() is None


def fill_up(redis: Redis) -> None:
    """Fill the remaining memory, down to the last small key."""
    for size in (100_000, 1000, 10):
        number = 0
        try:
            while True:
                redis.set(f"ballast:{size}:{number}", b"x" * size)
                number += 1
        except OutOfMemoryError:
            pass
