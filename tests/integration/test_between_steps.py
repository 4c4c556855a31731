"""Between two steps: an answer that is lost, somebody who is quicker, half an acknowledgement."""

from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError  # noqa: A004 - the client's own name

from api.publisher import Publisher
from api.recovery import Recovery
from common.admission import Admission
from common.compute import ComputeSlot
from common.fetch import Fetcher
from common.images import Limits
from common.ledger import HostPlaces, Ledger
from common.redis_client import connect
from common.uploads import RedisUploads, Uploads
from dev.redis_server import RedisServer
from workers.hosts import Hosts
from workers.pipeline import Pipeline
from workers.settlement import Settlement
from workers.writer import Writer

KEEP_S = 600
LEASE_S = 20.0


class Lossy:
    """Loses the next answer on its way when `loses` is set: what was asked for has been done by then."""

    def __init__(self, url: str) -> None:
        self.loses = False
        self.client = connect(url)
        # Connected, so that no answer to a greeting is the next one.
        self.client.ping()
        self._wrap(self.client.connection_pool.get_connection())

    def _wrap(self, connection: Any) -> None:
        read = connection.read_response

        def read_or_lose(*args: Any, **kwargs: Any) -> Any:
            answer = read(*args, **kwargs)
            if self.loses:
                self.loses = False
                connection.disconnect()
                raise ConnectionError("lost")
            return answer

        connection.read_response = read_or_lose
        self.client.connection_pool.release(connection)


@pytest.fixture
def lossy(redis_server: RedisServer, real_redis: Redis) -> Iterator[Lossy]:
    assert real_redis.ping()
    lossy = Lossy(redis_server.url)
    yield lossy
    lossy.client.close()


def ledger_in(redis: Redis, *, max_open: int = 1000) -> Ledger:
    return Ledger(
        redis,
        max_open=max_open,
        finished_keep_s=KEEP_S,
        failed_keep_s=KEEP_S,
        host_places=HostPlaces(most=1, lease_s=LEASE_S),
    )


def uploads_in(redis: Redis, *, max_bytes: int = 1000) -> Uploads:
    return RedisUploads(redis, room=Admission(redis, max_percent=80), max_bytes=max_bytes)


@pytest.fixture
def ledger(real_redis: Redis) -> Ledger:
    return ledger_in(real_redis)


@pytest.fixture
def uploads(real_redis: Redis) -> Uploads:
    return uploads_in(real_redis)


@pytest.fixture
def recovery(ledger: Ledger, uploads: Uploads, publisher: Publisher) -> Recovery:
    return Recovery(ledger, uploads, publisher)


def test_an_upload_whose_answer_was_lost_counts_once(lossy: Lossy, uploads: Uploads, room: Any) -> None:
    lossy.loses = True

    claim = RedisUploads(lossy.client, room=room, max_bytes=1000).put(b"a" * 100)

    held = uploads.held_bytes()
    uploads.drop([claim])
    assert (lossy.loses, held, uploads.held_bytes()) == (False, 100, 0)


def test_an_upload_that_just_fits_fits_also_when_its_answer_was_lost(lossy: Lossy, uploads: Uploads, room: Any) -> None:
    lossy.loses = True

    claim = RedisUploads(lossy.client, room=room, max_bytes=100).put(b"a" * 100)

    assert uploads.get(claim) == b"a" * 100


@pytest.fixture
def pipeline(ledger: Ledger, real_redis: Redis, memory_store: Any) -> Iterator[Pipeline]:
    uploads = uploads_in(real_redis, max_bytes=1_000_000)
    settlement = Settlement(ledger, uploads, failed_keep_s=KEEP_S)
    writer = Writer(memory_store, settlement, most=10, linger_s=0, hold_s=0)
    fetcher = Fetcher(max_bytes=1000, timeout_s=1)
    yield Pipeline(
        ledger=ledger,
        uploads=uploads,
        fetcher=fetcher,
        slot=ComputeSlot(timeout_s=30),
        limits=Limits(),
        writer=writer,
        settlement=settlement,
        hosts=Hosts(ledger, lambda *_: None),
    )
    fetcher.close()
    writer.close()
