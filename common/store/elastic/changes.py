"""The changes of an index, in order within each shard."""

from time import sleep

from common.errors import StoreUnavailable
from common.store.elastic.cluster import Cluster
from common.store.elastic.dialects import Json
from common.store.elastic.documents import BINARY
from common.store.elastic.responses import PARTIAL, hits

# Replicas reach the primary's checkpoint a moment after the last write; these pauses add up to three seconds.
PAUSE_S = 0.2
TRIES = 16


class Changes:
    """The changes of one index, by the server's `_seq_no` in each shard."""

    def __init__(self, cluster: Cluster, index: str) -> None:
        self._cluster = cluster
        self._index = index

    def checkpoints(self) -> dict[str, int]:
        """Return for each shard the `_seq_no` up to which all its copies are complete."""
        return {shard: numbers["global_checkpoint"] for shard, numbers in self._numbers().items()}

    def last(self) -> dict[str, int]:
        """Wait until all copies of each shard are complete, and return their last `_seq_no`.

        Only for an index that is blocked for writes. Raises StoreUnavailable if a copy lags behind for too long.
        """
        for _ in range(TRIES):
            shards = self._numbers()
            if all(numbers["global_checkpoint"] == numbers["max_seq_no"] for numbers in shards.values()):
                return {shard: numbers["max_seq_no"] for shard, numbers in shards.items()}
            sleep(PAUSE_S)
        raise StoreUnavailable("a copy of a shard lags behind")

    def refresh(self) -> None:
        """Make all changes up to the checkpoints visible to `after`."""
        self._cluster.post(f"/{self._index}/_refresh")

    def after(self, shard: str, number: int, *, upto: int, limit: int) -> list[Json]:
        """Return the documents whose last change is after this one, in order: a later change repeats a document."""
        body = {
            "query": {"range": {"_seq_no": {"gt": number, "lte": upto}}},
            "sort": ["_seq_no"],
            "size": limit,
            "_source": True,
            "docvalue_fields": BINARY,
            "track_total_hits": False,
        }
        return hits(self._cluster.post(f"/{self._index}/_search", body, preference=f"_shards:{shard}"))

    def _numbers(self) -> dict[str, Json]:
        """Return the `seq_no` statistics of each primary shard."""
        stats = self._cluster.get(f"/{self._index}/_stats/docs", level="shards")["indices"][self._index]
        numbers = {
            shard: copy["seq_no"]
            for shard, copies in stats["shards"].items()
            for copy in copies
            if copy["routing"]["primary"]
        }
        settings = self._cluster.get(f"/{self._index}/_settings", flat_settings="true")[self._index]["settings"]
        if len(numbers) < int(settings["index.number_of_shards"]):
            raise StoreUnavailable(PARTIAL)
        return numbers
