"""What only a real Elasticsearch can show: creation by several processes, outages, restarts, limits."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from common.errors import StoreError, StoreUnavailable
from common.signature import LENGTH
from common.store.base import Record, Tombstone, Verdict
from common.store.elastic import ElasticStore
from dev.elasticsearch_node import Node, why_not

PREPARE = """
import sys
from common.store.elastic import ElasticStore
store = ElasticStore(sys.argv[1], index=sys.argv[2], timeout_s=20)
sys.stdin.readline()
store.prepare()
print(store.count())
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node of our own, also where ELASTICSEARCH_URL names another: it is stopped and started here."""
    if reason := why_not():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with Node() as node:
        yield node


@pytest.fixture
def index() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def store(node: Node, index: str) -> Iterator[ElasticStore]:
    store = ElasticStore(node.url, index=index, timeout_s=10)
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def client(node: Node) -> Iterator[Elasticsearch]:
    with Elasticsearch(node.url) as client:
        yield client


def record(filepath: str, seq: int) -> Record:
    signature = np.random.default_rng(seq).integers(-2, 3, LENGTH).astype(np.int8)
    return Record(filepath=filepath, seq=seq, signatures=(signature,), added=seq, width=1, height=1)


def deletion(filepath: str, seq: int) -> Tombstone:
    return Tombstone(filepath=filepath, seq=seq, added=seq)


def test_several_processes_may_create_the_index_at_once(node: Node, index: str, client: Elasticsearch) -> None:
    command = [sys.executable, "-c", PREPARE, node.url, index]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]

    answers = [racer.communicate("go\n", timeout=60)[0] for racer in racers]

    assert [answer.strip() for answer in answers] == ["0"] * 4
    assert list(client.indices.get_alias(name=index)) == [f"{index}-1"]


def test_what_stands_under_our_name_is_left_alone(node: Node, index: str, client: Elasticsearch) -> None:
    client.indices.create(index=index)
    store = ElasticStore(node.url, index=index, timeout_s=10)

    with pytest.raises(StoreError, match="exists with the same name"):
        store.prepare()

    assert client.count(index=index)["count"] == 0
    store.close()


def test_an_index_that_is_gone_holds_writes_and_is_not_made_up(store: ElasticStore, client: Elasticsearch) -> None:
    (concrete,) = client.indices.get_alias(name=store.index)
    client.indices.delete(index=concrete)

    (written,) = store.put([record("cat.jpg", 1)])

    assert written.verdict is Verdict.HELD
    assert "no such index" in written.reason
    assert not client.indices.exists(index=store.index)
    with pytest.raises(StoreUnavailable):
        store.candidates(np.ones((1, LENGTH), np.int8), limit=1)
    assert not store.health().reads


def test_a_read_only_index_holds_writes_and_serves_reads(store: ElasticStore, client: Elasticsearch) -> None:
    store.put([record("cat.jpg", 1)])
    client.indices.put_settings(index=store.index, settings={"index.blocks.write": True})

    (written,) = store.put([record("dog.jpg", 2)])

    assert written.verdict is Verdict.HELD
    assert list(store.records(["cat.jpg"])) == ["cat.jpg"]
    health = store.health()
    assert (health.reads, health.writes, health.detail) == (True, False, "index.blocks.write")


def test_a_document_that_cannot_be_indexed_is_refused_with_the_reason(store: ElasticStore) -> None:
    bad = Record(
        filepath="bad.jpg",
        seq=2,
        signatures=record("", 1).signatures,
        added=1,
        width=2**31,
        height=1,
    )

    written = store.put([record("cat.jpg", 1), bad, record("dog.jpg", 3)])

    assert [item.verdict for item in written] == [Verdict.STORED, Verdict.REFUSED, Verdict.STORED]
    assert "out of range" in written[1].reason


def test_a_thousand_metadata_keys_add_nothing_to_the_mapping(store: ElasticStore, client: Elasticsearch) -> None:
    many = {f"key-{number}": {"nested": number} for number in range(1_000)}
    before = client.indices.get_mapping(index=store.index).body

    written = store.put(
        [replace(record(f"{seq}.jpg", seq), metadata={f"{seq}-{k}": v for k, v in many.items()}) for seq in (1, 2)]
    )

    assert {item.verdict for item in written} == {Verdict.STORED}
    assert client.indices.get_mapping(index=store.index).body == before
    store.refresh()
    assert store.filepaths(offset=0, limit=9, where={"2-key-999.nested": "999"}) == ["2.jpg"]


def test_a_large_write_is_cut_into_bodies(store: ElasticStore) -> None:
    items = [
        Record(
            filepath=f"{seq}.jpg",
            seq=seq,
            signatures=record("", seq).signatures,
            metadata={"text": ["x" * 8000] * 8},
            added=seq,
            width=1,
            height=1,
        )
        for seq in range(1, 301)
    ]

    written = store.put(items)

    assert {item.verdict for item in written} == {Verdict.STORED}
    store.refresh()
    assert store.count() == 300


def test_a_restart_loses_nothing_and_keeps_deletions(node: Node, store: ElasticStore) -> None:
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


def test_a_deletion_outlives_elasticsearchs_own_memory_of_it(store: ElasticStore, client: Elasticsearch) -> None:
    client.indices.put_settings(index=store.index, settings={"index.gc_deletes": "0s"})
    store.put([record("cat.jpg", 1), deletion("cat.jpg", 3)])
    client.indices.close(index=store.index)
    client.indices.open(index=store.index)
    store.prepare()

    (late,) = store.put([record("cat.jpg", 2)])

    assert late.verdict is Verdict.SUPERSEDED
    assert store.records(["cat.jpg"]) == {}


def test_no_credentials_are_told(node: Node) -> None:
    store = ElasticStore(node.url.replace("http://", "http://someone:geheim@"), index="images", timeout_s=10)

    with pytest.raises(StoreUnavailable) as raised:
        store.count()

    assert "geheim" not in f"{raised.value!r} {raised.value.__cause__!r} {store.health()} {store!r} {vars(store)}"
    store.close()
