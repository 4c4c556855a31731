"""Every store under contract: SQLite in a file of its own, Elasticsearch with an index of its own."""

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
    """Open the store of this test once more, as another process would."""
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
    """A store whose place is not there: no file, nobody listening."""
    if request.param == "sqlite":
        store: Store = SqliteStore(tmp_path / "nowhere" / "match.db")
    else:
        store = ElasticStore("http://user:secret@127.0.0.1:9", index="images", timeout_s=2)
    yield store
    store.close()
