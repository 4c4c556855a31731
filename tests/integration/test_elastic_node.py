"""A real node of an index server: concurrent creation of the index, outages, restarts, limits."""

import contextlib
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from common.errors import StoreError, StoreUnavailable
from common.images.signature import LENGTH
from common.store.base import Health, Selection, Verdict
from common.store.elastic import ElasticStore, Shape
from common.store.preparing import prepare_in_background
from dev.search_node import SearchNode
from support.index_servers import PRODUCTS, Product, connect, startable
from support.records import deletion, record
from support.waiting import wait_until

# The node starts and restarts, perhaps on a busy machine.
pytestmark = pytest.mark.timeout(300)

PREPARE = """
import sys
from common.store.elastic import ElasticStore
store = ElasticStore(sys.argv[1], index=sys.argv[2], timeout_s=20)
sys.stdin.readline()
store.prepare()
print(store.count())
"""


@pytest.fixture(scope="module", params=PRODUCTS)
def product(request: pytest.FixtureRequest, give_up: Callable[[str], NoReturn]) -> Product:
    return startable(request, give_up)


@pytest.fixture(scope="module")
def node(product: Product) -> Iterator[SearchNode]:
    """A node of this module, even when ELASTICSEARCH_URL names another: the tests stop and start it."""
    with product.node() as node:
        yield node


@pytest.fixture
def index() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def store(node: SearchNode, index: str) -> Iterator[ElasticStore]:
    store = ElasticStore(node.url, index=index, timeout_s=30)
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def client(node: SearchNode) -> Iterator[Elasticsearch]:
    with connect(node.url) as client:
        yield client


def test_several_processes_may_create_the_index_at_once(node: SearchNode, index: str, client: Elasticsearch) -> None:
    command = [sys.executable, "-c", PREPARE, node.url, index]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]

    answers = [racer.communicate("go\n", timeout=60)[0] for racer in racers]

    assert [answer.strip() for answer in answers] == ["0"] * 4
    assert list(client.indices.get_alias(name=index)) == [f"{index}-1"]


FOREIGN = {"properties": {"path": {"type": "text"}, "seq": {"type": "long"}}}


def create_misfit(client: Elasticsearch, product: Product, index: str, how: str) -> None:
    """Give the name to an index that is foreign, or of another version."""
    if how == "an index":
        client.indices.create(index=index)
    elif how == "an empty alias":
        client.indices.create(index=f"{index}-a", aliases={index: {}})
    elif how == "another's alias":
        client.indices.create(index=f"{index}-a", aliases={index: {"is_write_index": True}}, mappings=FOREIGN)
    elif how == "several indices":
        for name in ("a", "b"):
            client.indices.create(
                index=f"{index}-{name}",
                aliases={index: {}},
                mappings=Shape().mappings(product.dialect),
                settings=product.dialect.settings("hnsw"),
            )
    else:
        mappings = Shape().mappings(product.dialect)
        mappings["properties"] = {**mappings["properties"], "metadata": {"type": product.flattened}}
        del mappings["properties"]["labels"]
        client.indices.create(
            index=f"{index}-a", aliases={index: {}}, mappings=mappings, settings=product.dialect.settings("hnsw")
        )


MISFITS = {
    "an index": "an index named .* that is not an alias of Match",
    "an empty alias": "which is not an index of images",
    "another's alias": "which is not an index of images",
    "several indices": "has several indices",
    "an older mapping": r"is incompatible .*metadata is flat(tened|_object), labels is missing.*make reindex",
}


@pytest.mark.parametrize("how", list(MISFITS))
def test_foreign_index_under_the_name_is_reported_and_unchanged(
    node: SearchNode, product: Product, index: str, client: Elasticsearch, how: str
) -> None:
    create_misfit(client, product, index, how)
    before = client.indices.get(index=index).body
    store = ElasticStore(node.url, index=index, timeout_s=30)

    with pytest.raises(StoreError, match=MISFITS[how]) as raised:
        store.prepare()
    (written,) = store.put([record("cat.jpg", 1)])

    assert written.verdict is Verdict.RETRY
    assert written.reason == store.health().detail == str(raised.value)
    assert not isinstance(raised.value, StoreUnavailable)
    assert "\n" not in written.reason
    with pytest.raises(StoreError):
        store.count()
    client.indices.refresh(index=index)
    assert client.count(index=index)["count"] == 0
    assert client.indices.get(index=index).body == before
    store.close()
    client.indices.delete(index=list(before))


def test_store_serves_as_soon_as_the_index_is_repaired(
    node: SearchNode, product: Product, index: str, client: Elasticsearch
) -> None:
    create_misfit(client, product, index, "an older mapping")
    store = ElasticStore(node.url, index=index, timeout_s=30)
    assert not store.health().reads

    client.indices.delete(index=f"{index}-a")
    with contextlib.closing(ElasticStore(node.url, index=index, timeout_s=30)) as other:
        other.prepare()

    assert store.health() == Health(reads=True, writes=True)
    assert [written.verdict for written in store.put([record("cat.jpg", 1)])] == [Verdict.STORED]
    store.close()


def test_prepare_waits_for_the_shards_of_the_index(
    node: SearchNode, product: Product, index: str, client: Elasticsearch
) -> None:
    unassignable = {"index.routing.allocation.require._name": "nobody"}
    client.indices.create(
        index=f"{index}-1",
        aliases={index: {}},
        mappings=Shape().mappings(product.dialect),
        settings=unassignable | product.dialect.settings("hnsw"),
        wait_for_active_shards="0",
    )
    store = ElasticStore(node.url, index=index, timeout_s=30)
    before = store.health()

    client.indices.put_settings(index=index, settings=dict.fromkeys(unassignable))
    store.prepare()

    assert before == Health(reads=False, writes=False, detail=f"{product.name} returned 503: all shards failed")
    assert store.health() == Health(reads=True, writes=True)
    assert store.count() == 0
    store.close()


def test_permanent_error_is_logged_once(
    node: SearchNode, product: Product, index: str, client: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    create_misfit(client, product, index, "an index")
    store = ElasticStore(node.url, index=index, timeout_s=30)

    prepare_in_background(store)
    wait_until(lambda: not any(thread.name == "prepare-store" for thread in threading.enumerate()))

    (line,) = [entry for entry in caplog.records if entry.name == "common.store.preparing"]
    assert "that is not an alias of Match" in line.getMessage()
    assert line.exc_info is None
    store.close()


def test_index_is_created_in_the_configured_shape(
    node: SearchNode, product: Product, index: str, client: Elasticsearch
) -> None:
    shape = Shape(shards=3, replicas="0", refresh_interval_s=2.5, vectors="flat")
    store = ElasticStore(node.url, index=index, timeout_s=30, shape=shape)

    store.prepare()

    ((_, made),) = client.indices.get(index=index, flat_settings=True).items()
    assert made["settings"]["index.number_of_shards"] == "3"
    assert made["settings"]["index.number_of_replicas"] == "0"
    assert made["settings"]["index.refresh_interval"] == "2500ms"
    assert product.dialect.vectors(made["mappings"]["properties"]["bits_0"]) == "flat"
    store.put([record(f"{seq}.jpg", seq) for seq in range(1, 40)])
    store.refresh()
    (near,) = store.candidates(record("", 7).signatures[0][None], limit=3)
    assert near[0].filepath == "7.jpg"
    # Another configured shape is valid too: the next index will have it.
    ElasticStore(node.url, index=index, timeout_s=30).prepare()
    store.close()


@pytest.fixture(params=["refuses", "is silent"])
def unavailable(request: pytest.FixtureRequest) -> Iterator[str]:
    """A host that refuses connections, or does not respond at all."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        if request.param == "is silent":
            listener.listen(0)
            # The listener does not accept: once its queue is full, new connections get no response.
            for _ in range(4):
                caller = waiting.enter_context(socket.socket())
                caller.setblocking(False)  # noqa: FBT003 - the standard library's signature
                caller.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_unavailable_host_is_skipped(
    node: SearchNode, store: ElasticStore, unavailable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.store.elastic.connection.CONNECT_WITHIN_S", 0.5)
    # The client alternates between the hosts.
    several = ElasticStore(f"{unavailable},{node.url}", index=store.index, timeout_s=30)

    (written,) = several.put([record("cat.jpg", 1)])
    health = several.health()
    answers = [list(several.records(["cat.jpg"])) for _ in range(4)]

    assert written.verdict is Verdict.STORED
    assert health == Health(reads=True, writes=True)
    assert answers == [["cat.jpg"]] * 4
    several.close()


def test_missing_replica_does_not_impair_health(node: SearchNode, index: str, client: Elasticsearch) -> None:
    store = ElasticStore(node.url, index=index, timeout_s=30, shape=Shape(replicas="1"))

    store.prepare()

    assert client.cluster.health(index=index)["status"] == "yellow"
    assert store.health() == Health(reads=True, writes=True)
    store.close()


@pytest.fixture
def torn(node: SearchNode, product: Product, index: str, client: Elasticsearch) -> Iterator[ElasticStore]:
    """An index of two shards, one of which is unassigned."""
    client.indices.create(
        index=f"{index}-1",
        aliases={index: {}},
        mappings=Shape().mappings(product.dialect),
        settings=Shape(shards=2).settings(product.dialect) | {"index.routing.allocation.total_shards_per_node": 1},
        wait_for_active_shards="0",
    )
    wait_until(lambda: client.cluster.health(index=index)["active_primary_shards"] == 1)
    store = ElasticStore(node.url, index=index, timeout_s=30)
    yield store
    store.close()


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.candidates(record("", 1).signatures[0][None], limit=1),
        lambda store: store.records([f"{seq}.jpg" for seq in range(40)]),
        lambda store: store.count(),
        lambda store: store.count(selection=Selection(where={"a": "b"})),
        lambda store: store.filepaths(offset=0, limit=10),
        lambda store: store.filepaths_after(0, limit=10),
        lambda store: store.purge(before=1, limit=10),
    ],
    ids=["candidates", "records", "count", "count of some", "filepaths", "filepaths after", "purge"],
)
def test_index_with_a_missing_shard_refuses_reads(torn: ElasticStore, read: Callable[[ElasticStore], Any]) -> None:
    with pytest.raises(StoreUnavailable):
        read(torn)

    assert torn.health() == Health(reads=False, writes=False, detail="some shards did not respond")


def test_records_wait_only_for_their_own_shard(
    torn: ElasticStore, client: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.store.elastic.bulk.SHARD_WITHIN_S", 1)
    records = [record(f"{seq}.jpg", seq) for seq in range(1, 41)]

    first = torn.put(records)
    client.indices.put_settings(index=torn.index, settings={"index.routing.allocation.total_shards_per_node": None})
    torn.prepare()
    deferred = [one for one, written in zip(records, first, strict=True) if written.verdict is Verdict.RETRY]
    second = torn.put(deferred)

    assert {written.verdict for written in first} == {Verdict.STORED, Verdict.RETRY}
    reasons = {one.reason for one in first if one.verdict is Verdict.RETRY}
    # Of the other records, some have their patches in the shard that does not answer.
    assert any(reason.endswith("[1] primary shard is not active Timeout: [1s]") for reason in reasons)
    assert all("shard" in reason.lower() for reason in reasons)
    assert {written.verdict for written in second} == {Verdict.STORED}
    torn.refresh()
    assert torn.count() == 40


def test_deleted_index_defers_writes_and_is_not_recreated(store: ElasticStore, client: Elasticsearch) -> None:
    (concrete,) = client.indices.get_alias(name=store.index)
    client.indices.delete(index=concrete)

    (written,) = store.put([record("cat.jpg", 1)])

    assert written.verdict is Verdict.RETRY
    assert "no such index" in written.reason
    assert not client.indices.exists(index=store.index)
    with pytest.raises(StoreUnavailable):
        store.candidates(np.ones((1, LENGTH), np.int8), limit=1)
    assert not store.health().reads


def test_read_only_index_defers_writes_and_serves_reads(store: ElasticStore, client: Elasticsearch) -> None:
    store.put([record("cat.jpg", 1)])
    client.indices.put_settings(index=store.index, settings={"index.blocks.write": True})

    (written,) = store.put([record("dog.jpg", 2)])

    assert written.verdict is Verdict.RETRY
    assert list(store.records(["cat.jpg"])) == ["cat.jpg"]
    health = store.health()
    assert (health.reads, health.writes, health.detail) == (True, False, "index.blocks.write")


def test_document_that_cannot_be_indexed_is_rejected_with_reason(store: ElasticStore) -> None:
    bad = record("bad.jpg", 2, width=2**31)

    written = store.put([record("cat.jpg", 1), bad, record("dog.jpg", 3)])

    assert [item.verdict for item in written] == [Verdict.STORED, Verdict.REJECTED, Verdict.STORED]
    assert "out of range" in written[1].reason


def test_a_thousand_metadata_keys_add_nothing_to_the_mapping(store: ElasticStore, client: Elasticsearch) -> None:
    many = {f"key-{number}": {"nested": number} for number in range(1_000)}
    before = client.indices.get_mapping(index=store.index).body

    written = store.put(
        [record(f"{seq}.jpg", seq, metadata={f"{seq}-{k}": v for k, v in many.items()}) for seq in (1, 2)]
    )

    assert {item.verdict for item in written} == {Verdict.STORED}
    assert client.indices.get_mapping(index=store.index).body == before
    store.refresh()
    assert store.filepaths(offset=0, limit=9, selection=Selection(where={"2-key-999.nested": "999"})).filepaths == [
        "2.jpg"
    ]


def test_large_write_is_split_into_bodies(store: ElasticStore) -> None:
    items = [record(f"{seq}.jpg", seq, metadata={"text": ["x" * 8000] * 8}) for seq in range(1, 301)]

    written = store.put(items)

    assert {item.verdict for item in written} == {Verdict.STORED}
    store.refresh()
    assert store.count() == 300


def test_a_restart_loses_nothing_and_keeps_deletions(node: SearchNode, store: ElasticStore) -> None:
    store.put([record("cat.jpg", 1), record("dog.jpg", 2), deletion("cat.jpg", 5)])

    node.kill()
    with pytest.raises(StoreUnavailable):
        store.put([record("owl.jpg", 6)])
    with pytest.raises(StoreUnavailable):
        store.records(["dog.jpg"])
    assert not store.health().reads
    node.start()
    store.prepare()

    (late,) = store.put([record("cat.jpg", 3)])
    assert late.verdict is Verdict.SUPERSEDED
    assert list(store.records(["cat.jpg", "dog.jpg"])) == ["dog.jpg"]


def test_a_deletion_outlives_the_servers_own_memory_of_it(store: ElasticStore, client: Elasticsearch) -> None:
    client.indices.put_settings(index=store.index, settings={"index.gc_deletes": "0s"})
    store.put([record("cat.jpg", 1), deletion("cat.jpg", 3)])
    client.indices.close(index=store.index)
    client.indices.open(index=store.index)
    store.prepare()

    (late,) = store.put([record("cat.jpg", 2)])

    assert late.verdict is Verdict.SUPERSEDED
    assert store.records(["cat.jpg"]) == {}


def test_tombstones_outrank_older_adds_until_purged(
    node: SearchNode, store: ElasticStore, client: Elasticsearch
) -> None:
    client.indices.put_settings(index=store.index, settings={"index.gc_deletes": "0s"})
    store.put([record("1.jpg", 1), record("2.jpg", 2), record("3.jpg", 3)])
    store.put([deletion("1.jpg", 11), deletion("2.jpg", 12), deletion("3.jpg", 13)])

    node.restart()
    store.prepare()
    late = store.put([record("1.jpg", 4), record("2.jpg", 5), record("3.jpg", 6)])
    purged = []
    for _ in range(3):
        store.refresh()
        purged.append(store.purge(before=deletion("", 13).added, limit=1))

    assert [written.verdict for written in late] == [Verdict.SUPERSEDED] * 3
    assert purged == [1, 1, 0]
    assert [written.verdict for written in store.put([record("3.jpg", 7)])] == [Verdict.SUPERSEDED]
    assert store.count() == 0


def test_credentials_are_never_shown(node: SearchNode) -> None:
    store = ElasticStore(node.url.replace("http://", "http://someone:geheim@"), index="images", timeout_s=30)

    with pytest.raises(StoreUnavailable) as raised:
        store.count()

    assert "geheim" not in f"{raised.value!r} {raised.value.__cause__!r} {store.health()} {store!r} {vars(store)}"
    store.close()
