"""The API on its own, around a store in memory and a real Redis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
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
