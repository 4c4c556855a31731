"""The API on its own around a store in memory, and workers as processes; both on a real Redis."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.app import create_app
from api.gate import Gate
from api.intake import Intake
from api.pictures import Pictures
from api.publisher import Publisher
from api.recovery import Recovery
from api.services import Services
from api.waiting import Waiters
from common.admission import Admission
from common.compute import ComputeSlot
from common.config import Settings
from common.fetch import Fetcher
from common.images import Limits
from common.ledger import Ledger
from common.uploads import RedisUploads
from common.wiring import Parts, wire
from dev.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def make_client(memory_store: Any, real_redis: Redis) -> Iterator[Callable[..., FlaskClient]]:
    assert real_redis.ping()
    with ExitStack() as opened:

        def make(redis: Redis, *, broker: str = "memory://", max_open: int = 10, places: int = 4) -> FlaskClient:
            ledger = Ledger(redis, max_open=max_open, finished_keep_s=60, failed_keep_s=60)
            fetcher = opened.enter_context(Fetcher(max_bytes=1000, timeout_s=1))
            publisher = Publisher(broker)
            opened.callback(publisher.close)
            admission = Admission(redis, max_percent=80)
            uploads = RedisUploads(redis, room=admission, max_bytes=10_000_000)
            intake = Intake(admission, ledger, uploads, publisher, fetcher)
            waiters = Waiters(redis, ledger)
            opened.callback(waiters.close)
            services = Services(
                settings=Settings(max_image_bytes=100_000),
                store=memory_store,
                ledger=ledger,
                intake=intake,
                recovery=Recovery(ledger, uploads, publisher),
                pictures=Pictures(fetcher, ComputeSlot(timeout_s=30), Limits(), memory_store),
                waiters=waiters,
                searching=Gate(places, patience_s=0),
                waiting=Gate(places, patience_s=0),
                batching=Gate(places, patience_s=0),
            )
            return create_app(services).test_client()

        yield make


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
def parts(environment: Mapping[str, str]) -> Iterator[Parts]:
    parts = wire(Settings.from_env(environment))
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
