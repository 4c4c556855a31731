"""The stores under test: SQLite with its own file, Elasticsearch and OpenSearch each with its own index."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.store.base import Store
from common.store.elastic import ElasticStore, Shape
from common.store.elastic.connection import Connection
from common.store.sqlite import SqliteStore
from support.stores import MemoryStore

STORES = [
    "sqlite",
    pytest.param("elastic", marks=pytest.mark.elasticsearch),
    pytest.param("opensearch", marks=pytest.mark.opensearch),
    pytest.param("flat_opensearch", marks=pytest.mark.opensearch),
]


@pytest.fixture(params=STORES)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[[], Store]]:
    """Return a function that opens the store of this test again, as another process does."""
    yield from opening(request.getfixturevalue(f"build_{request.param}"))


def opening(build: Callable[[], Store]) -> Iterator[Callable[[], Store]]:
    """Yield a function that opens a store, and close all that it opened."""
    opened: list[Store] = []

    def connect() -> Store:
        opened.append(build())
        return opened[-1]

    yield connect
    for store in opened:
        store.close()


@pytest.fixture
def build_memory(memory_store: MemoryStore) -> Callable[[], Store]:
    """The fake of other tests."""
    return lambda: memory_store


@pytest.fixture
def build_sqlite(tmp_path: Path) -> Callable[[], Store]:
    return lambda: SqliteStore(tmp_path / "home" / "match.db")


@pytest.fixture
def build_elastic(elasticsearch_url: str) -> Iterator[Callable[[], Store]]:
    yield from stores_of(elasticsearch_url, Shape())


@pytest.fixture
def build_opensearch(opensearch_url: str) -> Iterator[Callable[[], Store]]:
    yield from stores_of(opensearch_url, Shape())


@pytest.fixture
def build_flat_opensearch(opensearch_url: str) -> Iterator[Callable[[], Store]]:
    """OpenSearch searches flat vectors by another query."""
    yield from stores_of(opensearch_url, Shape(vectors="flat"))


def stores_of(url: str, shape: Shape) -> Iterator[Callable[[], Store]]:
    """Yield a function that opens a store with an index of its own, which is deleted at the end."""
    index = f"test-{uuid.uuid4().hex[:12]}"
    yield lambda: ElasticStore(url, index=index, timeout_s=20, shape=shape)
    with closing(Connection(url, index=index, timeout_s=20)) as connection:
        connection.cluster().delete(f"/{index}-1", ignore_unavailable="true")


@pytest.fixture
def store(connect: Callable[[], Store]) -> Store:
    store = connect()
    store.prepare()
    return store


@pytest.fixture(params=["sqlite", "elastic"])
def absent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store that cannot be reached: its file does not exist, or its port is closed."""
    if request.param == "sqlite":
        store: Store = SqliteStore(tmp_path / "nowhere" / "match.db")
    else:
        store = ElasticStore("http://user:secret@127.0.0.1:9", index="images", timeout_s=2)
    yield store
    store.close()
