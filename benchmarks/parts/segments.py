"""The size of indices on a node, after their merges."""

import time
from collections.abc import Sequence

from parts.writing import put

from common.store.base import Record
from common.store.elastic import ElasticStore
from common.store.elastic.cluster import Cluster

# The server renews the retention leases of its shard copies every 30 s.
LEASES_S = 90.0
# The server's statistics of its process are at most this old.
STATS_S = 1.1
# Lucene's files of vectors, and of the graph.
VECTOR_FILES = {"vec", "vex"}


def drop(cluster: Cluster, *names: str) -> None:
    for name in names:
        cluster.delete(f"/{','.join(cluster.get(f'/{name}'))}")


def await_merges(cluster: Cluster) -> None:
    """Wait until background merges have ended: they would disturb the next measurement."""
    quiet = 0
    while quiet < 3:
        running = cluster.get("/_stats/merge")["_all"]["total"]["merges"]["current"]
        quiet = 0 if running else quiet + 1
        time.sleep(0.5)


def merged_bytes(cluster: Cluster, index: str) -> int:
    cluster.post(f"/{index}/_flush")
    cluster.post(f"/{index}/_forcemerge", max_num_segments="1")
    cluster.post(f"/{index}/_flush")
    return stored_bytes(cluster, index)


def stored_bytes(cluster: Cluster, index: str) -> int:
    return int(cluster.get(f"/{index}/_stats/store")["_all"]["primaries"]["store"]["size_in_bytes"])


def release_copies(store: ElasticStore, cluster: Cluster, records: Sequence[Record]) -> None:
    """Let the next merge drop the recovery source.

    The server keeps a copy of the fields that `_source` excludes, for the recovery of replicas. A single segment is
    not merged, so some records are written again. They are written twice, because a global checkpoint is committed only
    by the next flush.
    """
    await_leases(cluster, store.index)
    for _ in range(2):
        put(store, records)
        cluster.post(f"/{store.index}/_flush")


def await_leases(cluster: Cluster, index: str) -> None:
    """Wait until no retention lease needs the recovery source."""
    deadline = time.monotonic() + LEASES_S
    while time.monotonic() < deadline:
        (stats,) = cluster.get(f"/{index}/_stats", level="shards")["indices"].values()
        ((shard,),) = stats["shards"].values()
        checkpoint = shard["seq_no"]["global_checkpoint"]
        if all(lease["retaining_seq_no"] > checkpoint for lease in shard["retention_leases"]["leases"]):
            return
        time.sleep(0.5)
    print(f"{index}: the size includes the recovery source")


def segments(cluster: Cluster, index: str) -> list[int]:
    """Return the number of documents in each segment, largest first."""
    (details,) = cluster.get(f"/{index}/_segments")["indices"].values()
    copies = [copy for copies in details["shards"].values() for copy in copies]
    return sorted(
        (one["num_docs"] for copy in copies for one in copy["segments"].values() if one["search"]), reverse=True
    )


def node_cpu_s(cluster: Cluster) -> float:
    """Return the CPU seconds of the node's process; the server reads them once a second."""
    time.sleep(STATS_S)
    (node,) = cluster.get("/_nodes/stats/process")["nodes"].values()
    return float(node["process"]["cpu"]["total_in_millis"]) / 1000


def memory(cluster: Cluster) -> tuple[float, float]:
    """Return MiB: the used heap of the node, and vectors and graphs, which the page cache should hold."""
    (node,) = cluster.get("/_nodes/stats/jvm")["nodes"].values()
    stats = cluster.get("/match/_stats", include_segment_file_sizes="true")["_all"]["total"]
    # Elasticsearch counts them. OpenSearch has them in files of their own, unless the segment is one file.
    if off_heap := stats.get("dense_vector", {}).get("off_heap"):
        vectors = off_heap["total_size_bytes"]
    else:
        files = stats["segments"]["file_sizes"]
        vectors = sum(file["size_in_bytes"] for kind, file in files.items() if kind in VECTOR_FILES)
    return node["jvm"]["mem"]["heap_used_in_bytes"] / 2**20, vectors / 2**20
