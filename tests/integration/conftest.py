"""The API with a store in memory, and workers as processes, on a real Redis."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from redis import Redis

from common.config import Settings
from common.queue.publisher import Publisher
from common.wiring import Dependencies, build_dependencies
from dev.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def client(make_client: Callable[..., FlaskClient], real_redis: Redis) -> FlaskClient:
    return make_client(real_redis)


@pytest.fixture
def environment(redis_server: RedisServer, real_redis: Redis, tmp_path: Path) -> dict[str, str]:
    assert real_redis.dbsize() == 0
    return {
        "REDIS_URL": redis_server.url,
        "MATCH_STORE_URL": f"sqlite:///{tmp_path / 'match.db'}",
        "MATCH_WORKER_THREADS": "8",
    }


@pytest.fixture
def parts(environment: Mapping[str, str]) -> Iterator[Dependencies]:
    parts = build_dependencies(Settings.from_env(environment))
    parts.store.prepare()
    yield parts
    parts.close()


@pytest.fixture
def publisher(redis_server: RedisServer) -> Iterator[Publisher]:
    publisher = Publisher(redis_server.url)
    yield publisher
    publisher.close()


@pytest.fixture
def start_worker(environment: Mapping[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(*, code: str = "", **more: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "worker.log").open("ab") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, *(["-c", code] if code else ["-m", "workers"]), "-n", f"w{len(running)}@%h"],
                    cwd=ROOT,
                    env={**os.environ, **environment, **more},
                    stdout=log,
                    stderr=log,
                )
            )
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()
