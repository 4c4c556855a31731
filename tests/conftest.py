"""Fixtures of all tests: a Redis in memory, a real Redis, a store in memory and the API around it."""

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import fakeredis
import pytest
from flask.testing import FlaskClient
from redis import Redis
from xdist.scheduler import LoadFileScheduling

from api.access.keys import Keyring
from api.app import create_app
from api.concurrency import ConcurrencyLimit
from api.dependency_checks import DependencyChecks
from api.metrics import Metrics
from api.rate_limits import RateLimiter
from api.services import Services
from api.usage import UsageRecorder
from api.use_cases.add_images import AddImages
from api.use_cases.delete_images import DeleteImages
from api.use_cases.delete_selected import DeleteSelected
from api.use_cases.manage_batches import ManageBatches
from api.use_cases.manage_collections import ManageCollections
from api.use_cases.manage_tasks import ManageTasks
from api.use_cases.patch_images import PatchImages
from api.use_cases.search_images import SearchImages
from api.use_cases.wait_for_tasks import TaskWaiter
from api.wsgi import local_feature_limits
from common.byte_budget import ByteBudget
from common.config import Settings
from common.decoding.pool import Decoder
from common.net.fetch import Fetcher
from common.queue.admission import Admission
from common.queue.batches import Batches
from common.queue.expected_images import ExpectedImages
from common.queue.host_limits import NO_LIMIT, HostLimit
from common.queue.leases import Leases
from common.queue.ledger import Ledger
from common.queue.pause import Pause
from common.queue.publisher import Publisher
from common.queue.sequence import SequenceNumbers
from common.queue.task_pages import TaskPages
from common.queue.usage import UsageCounts
from common.redis.client import MAX_CONNECTIONS
from common.store.base import Store
from common.store.thumbnails import Thumbnails
from common.uploads import RedisUploads, Uploads
from dev import elasticsearch_node, opensearch_node
from dev.redis_server import RedisServer
from support.decoders import InProcessDecoder
from support.stores import MemoryStore
from support.timers import Timers

WEBHOOK_SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"
# With only Java's first compiler a node starts in less than half of the CPU time; the second helps only benchmarks.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
# Folders whose tests share fixtures that are slow to start.
SHARING = {"contract", "e2e", "manifests"}


class Share(LoadFileScheduling):
    """Assigns single files to processes, and the folders of SHARING as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(super()._split_scope(nodeid))
        return str(file.parent if file.parent.name in SHARING else file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return Share(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture
def fake_redis() -> Redis:
    return fakeredis.FakeRedis()


@pytest.fixture
def ledger(fake_redis: Redis) -> Ledger:
    return Ledger(fake_redis, max_open=10, finished_keep_s=60, failed_keep_s=600)


class FakeAdmission:
    """Admission to a Redis in memory, which reports no memory use; `nearly_full` is set by tests."""

    def __init__(self) -> None:
        self.nearly_full = False

    def check(self, new_bytes: int = 0) -> None:
        pass

    def is_nearly_full(self) -> bool:
        return self.nearly_full


@pytest.fixture
def fake_admission() -> FakeAdmission:
    return FakeAdmission()


@pytest.fixture
def uploads(fake_redis: Redis, fake_admission: Any) -> Uploads:
    return RedisUploads(fake_redis, admission=fake_admission, max_bytes=10_000_000)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis for the whole run."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def real_redis(redis_server: RedisServer) -> Iterator[Redis]:
    """An empty real Redis."""
    with Redis.from_url(redis_server.url, max_connections=MAX_CONNECTIONS) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def give_up() -> Callable[[str], NoReturn]:
    """Skip the test with a reason; in CI, fail it."""
    return pytest.fail if os.environ.get("CI") == "true" else pytest.skip


@pytest.fixture(scope="session")
def elasticsearch_url(give_up: Callable[[str], NoReturn]) -> Iterator[str]:
    """A real Elasticsearch: the one at ELASTICSEARCH_URL, else a node for the whole run."""
    if url := os.environ.get("ELASTICSEARCH_URL"):
        yield url
        return
    if reason := elasticsearch_node.why_not():
        give_up(reason)
    with elasticsearch_node.Node() as node:
        yield node.url


@pytest.fixture(scope="session")
def opensearch_url(give_up: Callable[[str], NoReturn]) -> Iterator[str]:
    """A real OpenSearch: the one at OPENSEARCH_URL, else a node for the whole run."""
    if url := os.environ.get("OPENSEARCH_URL"):
        yield url
        return
    if reason := opensearch_node.why_not():
        give_up(reason)
    with opensearch_node.OpenSearchNode() as node:
        yield node.url


@pytest.fixture
def memory_store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def make_client(
    memory_store: MemoryStore, real_redis: Redis, redis_server: RedisServer
) -> Iterator[Callable[..., FlaskClient]]:
    """Return a function that creates clients of an API, by default with a store in memory."""
    assert real_redis.ping()
    timers = Timers()
    with ExitStack() as opened:
        opened.callback(timers.close)

        def make(
            redis: Redis,
            *,
            broker: str = redis_server.url,
            max_open: int = 10,
            concurrency: int = 4,
            host_limit: HostLimit = NO_LIMIT,
            fetcher: Fetcher | None = None,
            settings: Settings | None = None,
            budget: ByteBudget | None = None,
            keyring: Keyring | None = None,
            rate_limiter: RateLimiter | None = None,
            store: Store = memory_store,
            decoder: Decoder | None = None,
            keep_s: int = 60,
            thumbnails: Thumbnails | None = None,
        ) -> FlaskClient:
            limits = {"max_open": max_open, "finished_keep_s": keep_s, "failed_keep_s": keep_s}
            ledger = Ledger(redis, **limits, host_limit=host_limit)
            fetcher = fetcher or opened.enter_context(Fetcher(max_bytes=1000, timeout_s=1))
            budget = budget or ByteBudget(10_000_000, wait_s=1)
            publisher = Publisher(broker)
            opened.callback(publisher.close)
            admission = Admission(redis, max_percent=80)
            uploads = RedisUploads(redis, admission=admission, max_bytes=10_000_000)
            task_waiter = TaskWaiter(redis, ledger)
            opened.callback(task_waiter.close)
            checks = DependencyChecks(store, ledger, redis)
            settings = settings or Settings(max_image_bytes=100_000, webhook_secret=(WEBHOOK_SECRET,))
            collections = ManageCollections(store, ledger, publisher, max_collections=settings.max_collections)
            batches, task_pages = Batches(redis), TaskPages(redis)
            manage_tasks = ManageTasks(ledger, uploads, publisher)
            services = Services(
                settings=settings,
                store=store,
                thumbnails=thumbnails,
                ledger=ledger,
                task_pages=task_pages,
                batches=batches,
                leases=Leases(redis),
                pause=Pause(redis),
                add_images=AddImages(admission, ledger, uploads, publisher, collections, fetcher, budget),
                delete_images=DeleteImages(SequenceNumbers(redis), store),
                delete_selected=DeleteSelected(store, ledger, batches, publisher),
                patch_images=PatchImages(SequenceNumbers(redis), ExpectedImages(redis), store),
                collections=collections,
                manage_tasks=manage_tasks,
                manage_batches=ManageBatches(batches, task_pages, manage_tasks),
                search_images=SearchImages(
                    fetcher,
                    decoder or InProcessDecoder(),
                    store,
                    budget,
                    local_feature_limits(settings, store),
                    search_slot=ConcurrencyLimit(concurrency).acquire,
                    download_slot=ConcurrencyLimit(concurrency).acquire,
                ),
                task_waiter=task_waiter,
                wait_limit=ConcurrencyLimit(concurrency),
                batch_limit=ConcurrencyLimit(concurrency),
                search_batch_limit=ConcurrencyLimit(1),
                dependency_checks=checks,
                metrics=Metrics(checks),
                usage=UsageRecorder(UsageCounts(redis), after=timers.start),
            )
            return create_app(services, keyring=keyring, rate_limiter=rate_limiter).test_client()

        yield make
