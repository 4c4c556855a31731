"""The changes of an index, shard by shard, in the order in which they were made."""

from time import sleep

from elasticsearch import Elasticsearch

from common.errors import StoreUnavailable
from common.store.elastic.answers import PARTIAL, Json, hits

# The copies of a shard agree a moment after its last write; these pauses make three seconds.
PAUSE_S = 0.2
TRIES = 16


class Changes:
    """The changes of one index, by the numbers that Elasticsearch itself gives them in each shard."""

    def __init__(self, client: Elasticsearch, index: str) -> None:
        self._client = client
        self._index = index

    def checkpoints(self) -> dict[str, int]:
        """Return for each shard the change up to which every copy of it has all."""
        return {shard: told["global_checkpoint"] for shard, told in self._numbers().items()}

    def last(self) -> dict[str, int]:
        """Wait until every copy of each shard has all, and return up to where that is.

        For an index that takes no writes. Raises StoreUnavailable when a copy lags behind for too long.
        """
        for _ in range(TRIES):
            numbers = self._numbers()
            if all(told["global_checkpoint"] == told["max_seq_no"] for told in numbers.values()):
                return {shard: told["max_seq_no"] for shard, told in numbers.items()}
            sleep(PAUSE_S)
        raise StoreUnavailable("a copy of a shard lags behind")

    def refresh(self) -> None:
        """Return when `after` finds all that is within the checkpoints."""
        self._client.indices.refresh(index=self._index)

    def after(self, shard: str, number: int, *, upto: int, limit: int) -> list[Json]:
        """Return the documents whose last changes follow this one, in their order: what changes again comes again."""
        answer = self._client.search(
            index=self._index,
            preference=f"_shards:{shard}",
            query={"range": {"_seq_no": {"gt": number, "lte": upto}}},
            sort=["_seq_no"],
            size=limit,
            source=True,
            docvalue_fields=[{"field": "sig"}],
            track_total_hits=False,
        )
        return hits(answer.body)

    def _numbers(self) -> dict[str, Json]:
        """Return for each shard how far its changes have gone."""
        told = self._client.indices.stats(index=self._index, level="shards", metric="docs")["indices"][self._index]
        numbers = {
            shard: copy["seq_no"]
            for shard, copies in told["shards"].items()
            for copy in copies
            if copy["routing"]["primary"]
        }
        settings = self._client.indices.get_settings(index=self._index, flat_settings=True)[self._index]["settings"]
        if len(numbers) < int(settings["index.number_of_shards"]):
            raise StoreUnavailable(PARTIAL)
        return numbers
