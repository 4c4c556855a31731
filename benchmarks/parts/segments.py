"""What indices weigh on a node, once their merges are done."""

import time
from collections.abc import Sequence

from elasticsearch import Elasticsearch
from parts.writing import put

from common.store.base import Record
from common.store.elastic import ElasticStore

# Elasticsearch looks every half minute whether it still needs its copies.
LEASES_S = 90.0


def drop(client: Elasticsearch, *names: str) -> None:
    for name in names:
        client.indices.delete(index=list(client.indices.get(index=name)))


def settle(client: Elasticsearch) -> None:
    """Wait until merges in the background have ended: they are not to touch what comes next."""
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


def forget_copies(store: ElasticStore, client: Elasticsearch, few: Sequence[Record]) -> None:
    """Have the next merge drop the copies of what `_source` leaves out, kept for replicas that might ask for them.

    A single segment would not be merged, so a few pictures are written again; twice, because a commit counts only once
    the next one knows that all before it has arrived.
    """
    await_leases(client, store.index)
    for _ in range(2):
        put(store, few)
        client.indices.flush(index=store.index)


def await_leases(client: Elasticsearch, index: str) -> None:
    """Wait until Elasticsearch needs its copies no more: every half minute it looks."""
    deadline = time.monotonic() + LEASES_S
    while time.monotonic() < deadline:
        (told,) = client.indices.stats(index=index, level="shards")["indices"].values()
        ((shard,),) = told["shards"].values()
        done = shard["seq_no"]["global_checkpoint"]
        if all(lease["retaining_seq_no"] > done for lease in shard["retention_leases"]["leases"]):
            return
        time.sleep(0.5)
    print(f"{index}: its recovery copies are still kept and counted")


def memory(client: Elasticsearch) -> tuple[float, float]:
    """Return MiB: the node's heap in use, and what vectors and graph want to have in the page cache."""
    (node,) = client.nodes.stats(metric="jvm")["nodes"].values()
    vectors = client.indices.stats(index="ours", metric="dense_vector")["_all"]["total"]["dense_vector"]
    off_heap = vectors.get("off_heap", {}).get("total_size_bytes", 0)
    return node["jvm"]["mem"]["heap_used_in_bytes"] / 2**20, off_heap / 2**20
