"""The size of indices on a node, after their merges."""

import time
from collections.abc import Sequence

from elasticsearch import Elasticsearch
from parts.writing import put

from common.store.base import Record
from common.store.elastic import ElasticStore

# Elasticsearch renews the retention leases of its shard copies every 30 s.
LEASES_S = 90.0


def drop(client: Elasticsearch, *names: str) -> None:
    for name in names:
        client.indices.delete(index=list(client.indices.get(index=name)))


def await_merges(client: Elasticsearch) -> None:
    """Wait until background merges have ended: they would disturb the next measurement."""
    quiet = 0
    while quiet < 3:
        running = client.indices.stats(metric="merge")["_all"]["total"]["merges"]["current"]
        quiet = 0 if running else quiet + 1
        time.sleep(0.5)


def merged_bytes(client: Elasticsearch, index: str) -> int:
    client.indices.flush(index=index)
    client.indices.forcemerge(index=index, max_num_segments=1)
    client.indices.flush(index=index)
    return stored_bytes(client, index)


def stored_bytes(client: Elasticsearch, index: str) -> int:
    return int(client.indices.stats(index=index, metric="store")["_all"]["primaries"]["store"]["size_in_bytes"])


def release_copies(store: ElasticStore, client: Elasticsearch, records: Sequence[Record]) -> None:
    """Let the next merge drop the recovery source.

    Elasticsearch keeps a copy of the fields that `_source` excludes, for the recovery of replicas. A single segment is
    not merged, so some records are written again. They are written twice, because a global checkpoint is committed only
    by the next flush.
    """
    await_leases(client, store.index)
    for _ in range(2):
        put(store, records)
        client.indices.flush(index=store.index)


def await_leases(client: Elasticsearch, index: str) -> None:
    """Wait until no retention lease needs the recovery source."""
    deadline = time.monotonic() + LEASES_S
    while time.monotonic() < deadline:
        (stats,) = client.indices.stats(index=index, level="shards")["indices"].values()
        ((shard,),) = stats["shards"].values()
        checkpoint = shard["seq_no"]["global_checkpoint"]
        if all(lease["retaining_seq_no"] > checkpoint for lease in shard["retention_leases"]["leases"]):
            return
        time.sleep(0.5)
    print(f"{index}: the size includes the recovery source")


def memory(client: Elasticsearch) -> tuple[float, float]:
    """Return MiB: the used heap of the node, and the size of vectors and graph, which the page cache should hold."""
    (node,) = client.nodes.stats(metric="jvm")["nodes"].values()
    vectors = client.indices.stats(index="match", metric="dense_vector")["_all"]["total"]["dense_vector"]
    off_heap = vectors.get("off_heap", {}).get("total_size_bytes", 0)
    return node["jvm"]["mem"]["heap_used_in_bytes"] / 2**20, off_heap / 2**20
