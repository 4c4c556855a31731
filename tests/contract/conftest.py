"""The stores under test: SQLite with its own file, Elasticsearch with its own index."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from common.store.base import Store
from common.store.elastic import ElasticStore
from common.store.sqlite import SqliteStore


@pytest.fixture(params=["sqlite", pytest.param("elastic", marks=pytest.mark.elasticsearch)])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[[], Store]]:
    """Return a function that opens the store of this test again, as another process does."""
    opened: list[Store] = []
    build = request.getfixturevalue(f"build_{request.param}")

    def connect() -> Store:
        opened.append(build())
        return opened[-1]

    yield connect
    for store in opened:
        store.close()


@pytest.fixture
def build_sqlite(tmp_path: Path) -> Callable[[], Store]:
    return lambda: SqliteStore(tmp_path / "home" / "match.db")


@pytest.fixture
def build_elastic(elasticsearch_url: str) -> Iterator[Callable[[], Store]]:
    index = f"test-{uuid.uuid4().hex[:12]}"
    yield lambda: ElasticStore(elasticsearch_url, index=index, timeout_s=20)
    with Elasticsearch(elasticsearch_url) as client:
        client.indices.delete(index=f"{index}-1", ignore_unavailable=True)


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
