"""A cluster of several nodes: when nodes die under load, no write is lost and no reply is partial."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from elasticsearch import Elasticsearch
from redis import Redis

from common.errors import StoreUnavailable
from common.store.base import Health, Record, Verdict
from common.store.elastic import ElasticStore, Shape
from dev.search_cluster import Cluster
from support.index_load import Load, contents, put, record, under_load, until_it_answers
from support.index_servers import PRODUCTS, Product, connect, startable
from support.waiting import wait_until

# Three nodes start, two of them twice, perhaps on a busy machine.
pytestmark = pytest.mark.timeout(300)

SHARDS = 2
WITHOUT_A_MASTER = {"Elasticsearch": "no master", "OpenSearch": Verdict.STORED.name}


@pytest.fixture(scope="module", params=PRODUCTS)
def product(request: pytest.FixtureRequest, give_up: Callable[[str], NoReturn]) -> Product:
    return startable(request, give_up)


@pytest.fixture(scope="module")
def running(product: Product) -> Iterator[Cluster]:
    with Cluster(product.node) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    running.start()
    return running


@pytest.fixture
def leader(cluster: Cluster) -> Iterator[Elasticsearch]:
    with connect(cluster.master.url) as client:
        yield client


@pytest.fixture
def store(cluster: Cluster, leader: Elasticsearch) -> Iterator[ElasticStore]:
    """An index with a complete copy on each data node, the default on several nodes."""
    shape = Shape(shards=SHARDS, vectors="flat")
    store = ElasticStore(cluster.url, index=f"test-{uuid.uuid4().hex[:12]}", timeout_s=10, shape=shape)
    store.prepare()
    wait_until(lambda: copies(leader, store) == 2 * SHARDS)
    yield store
    store.close()


def copies(client: Elasticsearch, store: ElasticStore) -> int:
    """Return the number of active shards, primaries and replicas."""
    return int(client.cluster.health(index=store.index)["active_shards"])


@pytest.fixture
def load(store: ElasticStore, real_redis: Redis, uploads: Any) -> Iterator[Load]:
    with under_load(store, real_redis, uploads) as load:
        yield load


def attempt(store: ElasticStore, item: Record) -> str:
    """Return the verdict of a write, or the reason why it waits."""
    try:
        return put(store, item).name
    except StoreUnavailable as error:
        return str(error)


def test_without_a_master_searches_answer_and_writes_wait(
    product: Product, cluster: Cluster, store: ElasticStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.store.elastic.bulk.SHARD_WITHIN_S", 1)
    cat, dog = record("cat.jpg", 1), record("dog.jpg", 2)
    store.put([cat])
    store.refresh()

    cluster.master.kill()
    wait_until(lambda: not store.health().writes)
    health = store.health()
    (near,) = store.candidates(cat.signatures[0][None], limit=1)
    records, count = store.records(["cat.jpg"]), store.count()
    attempted = attempt(store, dog)
    cluster.start()
    verdict = until_it_answers(lambda: put(store, dog))

    assert (health.reads, health.writes) == (True, False)
    assert "not_discovered" in health.detail
    assert [one.filepath for one in near] == ["cat.jpg"]
    assert (contents(records), count) == (contents({"cat.jpg": cat}), 1)
    # OpenSearch needs its master only for changes of indices and their copies.
    assert WITHOUT_A_MASTER[product.name] in attempted
    assert verdict is Verdict.STORED


def test_deaths_of_data_nodes_lose_nothing(
    cluster: Cluster, leader: Elasticsearch, store: ElasticStore, load: Load
) -> None:
    first, second = cluster.data
    load.wait_for_progress()

    first.kill()
    load.wait_for_progress()
    with_one_node = store.health()
    first.start()
    wait_until(lambda: copies(leader, store) == 2 * SHARDS)
    with_both_nodes = leader.cluster.health(index=store.index)["status"]
    load.wait_for_progress()
    load.stop()
    acknowledged = load.acknowledged()
    paths = [*acknowledged, *load.newest]
    from_both = contents(until_it_answers(lambda: store.records(paths)))
    second.kill()
    from_the_first = contents(until_it_answers(lambda: store.records(paths)))
    until_it_answers(store.refresh)

    assert with_one_node == Health(reads=True, writes=True)
    assert with_both_nodes == "green"
    assert from_both == acknowledged
    assert from_the_first == acknowledged
    assert until_it_answers(store.count) == len(acknowledged)
