"""Three nodes in three zones: a copy of each shard in each zone, and the death of each node in turn."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NoReturn

import pytest
from redis import Redis

from common.errors import StoreError, StoreUnavailable
from common.store.base import Health
from common.store.elastic import ElasticStore, Shape
from dev.search_cluster import ZonesCluster
from support.index_load import contents, under_load, until_it_answers
from support.index_servers import BOTH_PRODUCTS, ELASTICSEARCH, OPENSEARCH, Product, connect, startable
from support.waiting import wait_until

# Each node starts twice, perhaps on a busy machine.
pytestmark = pytest.mark.timeout(900)

SHARDS, COPIES = 2, 3
# As in a domain of Amazon OpenSearch Service in three zones with standby: copies are a multiple of the zones.
BALANCE = {"cluster.routing.allocation.awareness.balance": "true"}
SETTINGS = {ELASTICSEARCH.name: {}, OPENSEARCH.name: BALANCE}


@pytest.fixture(scope="module", params=BOTH_PRODUCTS)
def product(request: pytest.FixtureRequest, give_up: Callable[[str], NoReturn]) -> Product:
    return startable(request, give_up)


@pytest.fixture(scope="module")
def cluster(product: Product) -> Iterator[ZonesCluster]:
    with ZonesCluster(product.node, SETTINGS[product.name]) as cluster:
        yield cluster


@pytest.fixture
def open_store(cluster: ZonesCluster) -> Iterator[Callable[[Shape], ElasticStore]]:
    index = f"test-{uuid.uuid4().hex[:12]}"
    opened: list[ElasticStore] = []

    def open_store(shape: Shape) -> ElasticStore:
        opened.append(ElasticStore(cluster.url, index=index, timeout_s=20, shape=shape))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


def active_shards(cluster: ZonesCluster, index: str) -> int:
    """Return the number of active copies, as a node that runs counts them."""
    node = next(node for node in cluster.nodes if node.running)
    with closing(connect(node.url)) as client:
        return int(client.cluster.health(index=index)["active_shards"])


def zones(cluster: ZonesCluster, index: str) -> list[list[str]]:
    """Return for each shard the nodes with a copy of it."""
    with closing(connect(cluster.nodes[0].url)) as client:
        copies = list(client.cat.shards(index=index, format="json", h="shard,node"))
    return [sorted(copy["node"] for copy in copies if copy["shard"] == f"{shard}") for shard in range(SHARDS)]


@pytest.mark.parametrize("replicas", ["0-1", "1", "0"])
def test_opensearch_rejects_copies_that_zones_cannot_share(
    product: Product, open_store: Callable[[Shape], ElasticStore], replicas: str
) -> None:
    if product is not OPENSEARCH:
        pytest.skip("Elasticsearch accepts any number")

    with pytest.raises(StoreError, match=r"multiple of total awareness attributes \[3\]") as raised:
        open_store(Shape(replicas=replicas)).prepare()

    assert not isinstance(raised.value, StoreUnavailable)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("replicas", ["2", "0-2"])
def test_each_zone_has_a_copy_of_each_shard(
    cluster: ZonesCluster, open_store: Callable[[Shape], ElasticStore], replicas: str
) -> None:
    store = open_store(Shape(shards=SHARDS, replicas=replicas))

    store.prepare()

    wait_until(lambda: active_shards(cluster, store.index) == SHARDS * COPIES, "all copies are active")
    assert zones(cluster, store.index) == [[*cluster.zones]] * SHARDS


def test_death_of_each_node_loses_nothing(
    cluster: ZonesCluster, open_store: Callable[[Shape], ElasticStore], real_redis: Redis, uploads: Any
) -> None:
    store = open_store(Shape(shards=SHARDS, replicas="2", vectors="flat"))
    store.prepare()
    wait_until(lambda: active_shards(cluster, store.index) == SHARDS * COPIES, "all copies are active")

    with under_load(store, real_redis, uploads) as load:
        for node in cluster.nodes:
            load.wait_for_progress()
            node.kill()
            load.wait_for_progress()
            wait_until(lambda: store.health() == Health(reads=True, writes=True), "two nodes serve reads and writes")
            node.start()
            wait_until(lambda: active_shards(cluster, store.index) == SHARDS * COPIES, "all copies are active")
        load.wait_for_progress()
        load.stop()
        acknowledged = load.acknowledged()
        paths = [*acknowledged, *load.newest]

    assert contents(until_it_answers(lambda: store.records(paths))) == acknowledged
    until_it_answers(store.refresh)
    assert until_it_answers(store.count) == len(acknowledged)
