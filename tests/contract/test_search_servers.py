"""The contract of an index on both search servers: a mapping of an earlier version, and a move to another index."""

import base64
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from common.errors import StoreError, StoreUnavailable
from common.images.signature import LENGTH, Signature
from common.store.base import DEFAULT_COLLECTION, Collection, Selection, Verdict
from common.store.elastic import ElasticStore, Shape
from common.store.elastic.cluster import Cluster
from common.store.elastic.connection import Connection
from common.store.elastic.copying import Copying
from common.store.elastic.dialects import Vectors, bits_within
from common.store.elastic.documents import identity
from common.store.elastic.mapping import MERGES, VECTORS
from support.records import deletion, features_of, record, signature

COUNT = 120
# The fields that an index of the first version lacks, and a document of it; it has no features.
ADDED_LATER = ("bits_1", "sha256", "url", "features", "words", "collection", "entry", "max_images", "metadata_seq")
OLDER = {"path": "old.jpg", "seq": 1, "deleted": False, "added": 1, "width": 640, "height": 480}
OLDER["sig"] = base64.b64encode(bytes(LENGTH)).decode()
SHA256 = bytes(range(0, 256, 8))
FLOOR = "index.merge.policy.floor_segment"
URL = "https://images.example.org/cat.jpg"


@pytest.fixture(
    params=[
        pytest.param("elasticsearch_url", marks=pytest.mark.elasticsearch),
        pytest.param("opensearch_url", marks=pytest.mark.opensearch),
    ]
)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def index() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def cluster(url: str, index: str) -> Iterator[Cluster]:
    """The cluster; the indices of this test are deleted at the end."""
    with closing(Connection(url, index=index, timeout_s=20)) as connection:
        cluster = connection.cluster()
        yield cluster
        if names := cluster.get(f"/{index}*", ignore_unavailable="true"):
            cluster.put(f"/{','.join(names)}/_settings", {"index.blocks.read_only": None})
            cluster.delete(f"/{','.join(names)}")


@pytest.fixture
def connect(url: str, index: str) -> Iterator[Callable[..., ElasticStore]]:
    stores: list[ElasticStore] = []

    def connect(**options: Any) -> ElasticStore:
        stores.append(ElasticStore(url, index=index, timeout_s=20, **options))
        return stores[-1]

    yield connect
    for store in stores:
        store.close()


def create(cluster: Cluster, index: str, *, without: Sequence[str] = (), **changes: Any) -> None:
    """Create an index whose mapping lacks fields, or differs."""
    mappings = Shape().mappings(cluster.dialect)
    properties = {name: field for name, field in mappings["properties"].items() if name not in without} | changes
    mappings = {**mappings, "properties": properties}
    body = {
        "aliases": {index: {}},
        "mappings": mappings,
        "settings": Shape().settings(cluster.dialect),
    }
    cluster.put(f"/{index}-1", body)


def source(store: ElasticStore, filepath: str) -> tuple[bytes | None, str | None]:
    stored = store.records([filepath])[filepath]
    return stored.sha256, stored.url


def features(store: ElasticStore) -> dict[str, bytes | None]:
    return {filepath: item.features for filepath, item in store.records(["cat.jpg", "dog.jpg"]).items()}


def near(store: ElasticStore, seed: int) -> list[str]:
    return [candidate.filepath for candidate in store.candidates(signature(seed)[None], limit=1)[0]]


@pytest.mark.parametrize("prepares", [True, False], ids=["at its start", "at its first write"])
def test_index_gets_the_fields_that_it_lacks(
    cluster: Cluster,
    index: str,
    connect: Callable[..., ElasticStore],
    prepares: bool,  # noqa: FBT001 - a parameter
) -> None:
    create(cluster, index, without=ADDED_LATER)
    store = connect()
    if prepares:
        store.prepare()

    (written,) = store.put([record("cat.jpg", 1, signature(1), signature(2), sha256=SHA256, url=URL)])

    ((_, details),) = cluster.get(f"/{index}/_mapping").items()
    properties = details["mappings"]["properties"]
    store.refresh()
    assert written.verdict is Verdict.STORED
    assert properties["bits_1"] == properties["bits_0"]
    assert near(store, 2) == ["cat.jpg"]
    assert source(store, "cat.jpg") == (SHA256, URL)


def merge_settings(cluster: Cluster, index: str) -> dict[str, Any]:
    [details] = cluster.get(f"/{index}/_settings/index.merge.*", flat_settings="true").values()
    settings: dict[str, Any] = details["settings"]
    return settings


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, MERGES), ({FLOOR: "1mb"}, {FLOOR: "1mb"})],
    ids=["an index of an earlier version", "an operator's own"],
)
def test_index_gets_merge_settings_only_if_none_is_set(
    cluster: Cluster, index: str, connect: Callable[..., ElasticStore], before: dict[str, str], after: dict[str, str]
) -> None:
    settings = {key: value for key, value in Shape().settings(cluster.dialect).items() if key not in MERGES}
    mappings = Shape().mappings(cluster.dialect)
    cluster.put(f"/{index}-1", {"aliases": {index: {}}, "mappings": mappings, "settings": settings | before})

    (written,) = connect().put([record("cat.jpg", 1)])

    assert written.verdict is Verdict.STORED
    assert merge_settings(cluster, index) == after


def test_new_index_has_the_merge_settings(cluster: Cluster, index: str, connect: Callable[..., ElasticStore]) -> None:
    connect().prepare()

    assert merge_settings(cluster, index) == MERGES


def test_segments_of_each_shard_are_read(connect: Callable[..., ElasticStore]) -> None:
    store = connect(shape=Shape(shards=2, replicas="0"))
    store.prepare()
    before = store._index.segments(within_s=20)
    store.put([record("0.jpg", 1)])
    store.refresh()
    in_one_shard = store._index.segments(within_s=20)

    store.put([record(f"{seq}.jpg", seq) for seq in range(2, COUNT + 1)])
    store.refresh()

    in_both = store._index.segments(within_s=20)
    assert sum(map(sum, before)) == 0
    assert [sizes for sizes in in_one_shard if sizes] == [[1]]
    assert sum(map(sum, in_both)) == COUNT
    assert all(1 <= len(sizes) <= 2 for sizes in in_both)


def test_documents_without_a_source_are_read_and_copied(
    cluster: Cluster, index: str, connect: Callable[..., ElasticStore]
) -> None:
    create(cluster, index, without=ADDED_LATER)
    cluster.put(f"/{index}/_doc/{identity('old.jpg')}", OLDER, version="1", version_type="external")
    store = connect()
    store.put([record("new.jpg", 2, sha256=SHA256, url=URL)])

    before = [source(store, filepath) for filepath in ("old.jpg", "new.jpg")]
    Copying(cluster, index, shape=Shape(), grace_s=0).run()
    after = [source(store, filepath) for filepath in ("old.jpg", "new.jpg")]

    assert before == after == [(None, None), (SHA256, URL)]


def test_features_are_copied(cluster: Cluster, index: str, connect: Callable[..., ElasticStore]) -> None:
    create(cluster, index, without=ADDED_LATER)
    store = connect()
    # Their first byte is the version.
    newer = b"\xff" + features_of(1, 2)[1:]
    store.put([record("cat.jpg", 1, features=features_of(1, 2)), record("dog.jpg", 2, features=newer)])

    before = features(store)
    Copying(cluster, index, shape=Shape(), grace_s=0).run()

    (candidate,) = store.candidates_by_words(np.array([2], np.uint32), limit=9)
    assert before == features(store) == {"cat.jpg": features_of(1, 2), "dog.jpg": newer}
    assert candidate.filepath == "cat.jpg"


def test_collections_are_copied(cluster: Cluster, index: str, connect: Callable[..., ElasticStore]) -> None:
    create(cluster, index, without=ADDED_LATER)
    cluster.put(f"/{index}/_doc/{identity('old.jpg')}", OLDER, version="1", version_type="external")
    store = connect()
    store.put(
        [
            record("cat.jpg", 2, collection="shop"),
            record("cat.jpg", 3, metadata_seq=8),
            deletion("dog.jpg", 4, collection="shop"),
        ]
    )
    for name in ("kept", "gone", "late"):
        store.put_collection(name, max_images=len(name))
    store.delete_collection("gone")

    def report(line: str) -> None:
        # Writes are accepted until the last changes are copied.
        if line.startswith("copied") and store.collection("late"):
            store.delete_collection("late")
            store.put_collection("kept", max_images=7)

    Copying(cluster, index, shape=Shape(), grace_s=0, report=report).run()

    store.refresh()
    assert store.collections() == [
        Collection(name=DEFAULT_COLLECTION, images=2),
        Collection(name="kept", images=0, max_images=7),
        Collection(name="shop", images=1),
    ]
    assert store.records(["cat.jpg"], collection="shop")["cat.jpg"].seq == 2
    copied = store.records(["cat.jpg"])["cat.jpg"]
    assert (copied.seq, copied.metadata_seq) == (3, 8)
    assert [written.verdict for written in store.put([record("dog.jpg", 1, collection="shop")])] == [Verdict.SUPERSEDED]


def test_purge_removes_deleted_entries_only(cluster: Cluster, index: str, connect: Callable[..., ElasticStore]) -> None:
    store = connect()
    store.prepare()
    for name in ("kept", "gone", "again"):
        store.put_collection(name, max_images=5)
    for name in ("gone", "again"):
        store.delete_collection(name)
    store.refresh()
    store.create_collection("again")

    purged = store.purge(before=2**50, limit=10)

    store.refresh()
    response = cluster.post(f"/{index}/_search", {"query": {"exists": {"field": "entry"}}, "sort": ["entry"]})
    entries = [hit["_source"] for hit in response["hits"]["hits"]]
    assert (purged, entries) == (1, [{"entry": "again"}, {"entry": "kept", "max_images": 5}])
    assert store.collection("gone") is None


def test_records_are_looked_up_by_their_digest(
    cluster: Cluster, index: str, connect: Callable[..., ElasticStore]
) -> None:
    create(cluster, index, without=ADDED_LATER)
    store = connect()
    store.put([record("cat.jpg", 1, sha256=SHA256, url=URL), record("dog.jpg", 2, sha256=bytes(32))])
    store.refresh()

    response = cluster.post(f"/{index}/_search", {"query": {"term": {"sha256": SHA256.hex()}}})

    assert [hit["_source"]["path"] for hit in response["hits"]["hits"]] == ["cat.jpg"]


def test_read_only_index_that_lacks_fields_serves_reads(
    cluster: Cluster, index: str, connect: Callable[..., ElasticStore]
) -> None:
    create(cluster, index, without=ADDED_LATER)
    cluster.put(f"/{index}/_doc/{identity('old.jpg')}", OLDER, version="1", version_type="external", refresh="true")
    cluster.put(f"/{index}-1/_settings", {"index.blocks.read_only": True})
    store = connect()

    with pytest.raises(StoreUnavailable, match="read-only"):
        store.put([record("cat.jpg", 1)])

    assert (store.count(), near(store, 1), store.records(["cat.jpg"])) == (1, [], {})
    assert source(store, "old.jpg") == (None, None)
    assert store.collections() == [Collection(name=DEFAULT_COLLECTION, images=1)]
    assert store.collection("shop") is None
    assert store.count(selection=Selection(collection="shop")) == 0
    assert store.candidates(signature(1)[None], limit=1, selection=Selection(collection="shop")) == [[]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": ["labels"]}, r"labels is missing\): run `make reindex`"),
        ({"width": {"type": "keyword"}}, r"width is keyword\): run `make reindex`"),
        ({"bits_1": {"type": "keyword"}}, r"bits_1 is keyword\): run `make reindex`"),
        ({"path": {"type": "text"}}, "which is not an index of images"),
    ],
    ids=["a required field is missing", "another type", "another type of vector", "a foreign index"],
)
def test_incompatible_index_is_reported_and_unchanged(
    cluster: Cluster, index: str, connect: Callable[..., ElasticStore], changes: Any, message: str
) -> None:
    create(cluster, index, **changes)
    before = cluster.get(f"/{index}")
    store = connect()

    with pytest.raises(StoreError, match=message):
        store.prepare()

    assert store.health().detail
    assert cluster.get(f"/{index}") == before


@pytest.mark.opensearch
@pytest.mark.parametrize(("vectors", "engine"), [("hnsw", "lucene"), ("flat", None)])
def test_opensearch_has_graphs_of_lucene_or_none(opensearch_url: str, index: str, vectors: Any, engine: Any) -> None:
    with closing(ElasticStore(opensearch_url, index=index, timeout_s=20, shape=Shape(vectors=vectors))) as store:
        store.prepare()
        store.put([record("cat.jpg", 1)])
        store.refresh()

        [details] = store._connection.cluster().get(f"/{index}", flat_settings="true").values()
        existing = store._index.existing()

        fields = [details["mappings"]["properties"][field] for field in VECTORS]
        assert [field.get("method", {}).get("engine") for field in fields] == [engine] * len(VECTORS)
        assert details["settings"]["index.knn"] == str(vectors == "hnsw").lower()
        assert existing is not None
        assert (existing.vectors, near(store, 1)) == (vectors, ["cat.jpg"])
        store._connection.cluster().delete(f"/{index}-1")


@pytest.mark.parametrize(("before", "after"), [("flat", "hnsw"), ("hnsw", "flat")])
def test_searches_continue_while_the_index_is_replaced(
    cluster: Cluster, index: str, connect: Callable[..., ElasticStore], before: Any, after: Any
) -> None:
    store = connect(shape=Shape(vectors=before, shards=2))
    store.prepare()
    store.put([record(f"{seq}.jpg", seq) for seq in range(1, COUNT)] + [deletion("5.jpg", COUNT)])
    store.refresh()
    ended = threading.Event()

    def search() -> set[str]:
        matches = set()
        while not ended.wait(0.02):
            matches.update(near(store, 9))
        return matches

    with ThreadPoolExecutor(1) as pool:
        searches = pool.submit(search)
        try:
            copied = Copying(cluster, index, shape=Shape(vectors=after), batch=50, grace_s=0.5).run()
            matches = near(store, 8)
        finally:
            ended.set()

    existing = store._index.existing()
    assert searches.result() == {"9.jpg"}
    assert existing is not None
    assert (existing.name, existing.vectors) == (f"{index}-2", after)
    assert (copied, matches, store.count()) == (COUNT - 1, ["8.jpg"], COUNT - 2)
    assert list(cluster.get(f"/{index}-*/_alias")) == [f"{index}-2"]
    assert [written.verdict for written in store.put([record("5.jpg", 6)])] == [Verdict.SUPERSEDED]


def with_differing_bits(original: Signature, differing: int) -> Signature:
    """Return a signature whose vector differs in so many bits."""
    values = np.flatnonzero(original)
    opposite, zero = divmod(differing, 2)
    changed = original.copy()
    changed[values[:opposite]] *= -1
    changed[values[opposite : opposite + zero]] = 0
    return changed


@pytest.mark.parametrize("vectors", ["hnsw", "flat"])
def test_images_up_to_the_bound_are_candidates(connect: Callable[..., ElasticStore], vectors: Vectors) -> None:
    store = connect(shape=Shape(vectors=vectors, replicas="0"))
    store.prepare()
    query, bound = signature(1), bits_within(0.45)
    store.put([record("in.jpg", 1, with_differing_bits(query, bound))])
    store.put([record("out.jpg", 2, with_differing_bits(query, bound + 1))])
    store.refresh()

    alone = store.candidates(query[None], limit=5, max_distance=0.45)
    together = store.candidates(np.stack([query, -query]), limit=5, max_distance=0.45)

    assert [[image.filepath for image in images] for images in (*alone, *together)] == [["in.jpg"], ["in.jpg"], []]


def test_many_copies_of_one_query_displace_no_other(connect: Callable[..., ElasticStore]) -> None:
    store = connect(shape=Shape(shards=5, replicas="0"))
    store.prepare()
    store.put([record(f"{number}.jpg", number + 1, signature(1)) for number in range(60)])
    store.put([record("other.jpg", 61, with_differing_bits(signature(2), 100))])
    store.refresh()

    copies, others = store.candidates(np.stack([signature(1), signature(2)]), limit=2, max_distance=0.45)

    assert len(copies) >= 2
    assert [image.filepath for image in others] == ["other.jpg"]
