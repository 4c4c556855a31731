"""The store in Elasticsearch: writes with the order of requests as versions, searches by bit vectors."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError, StoreUnavailable
from common.pictures.signature import Signature
from common.store.base import Candidate, Health, Page, Record, Tombstone, Verdict, Written
from common.store.elastic import documents
from common.store.elastic.answers import PARTIAL, Json, hits, is_whole, our_errors, reason
from common.store.elastic.bulk import action, bulk, written
from common.store.elastic.coalesced import Coalesced
from common.store.elastic.connection import connect
from common.store.elastic.index import Index
from common.store.elastic.mapping import LIVE, VECTORS, Shape
from common.store.labels import wanted

HEALTH_TIMEOUT_S = 3.0
# Elasticsearch refuses from + size, and num_candidates, above 10,000: a page and what is skipped before it share it.
WINDOW = 10_000
PAGE = WINDOW // 2
IDS_AT_ONCE = 1_000
# HNSW looks at this many vectors a shard at least: recall .995 at 300,000 pictures, where 200 give .982.
BREADTH = 500


class ElasticStore:
    """Store behind the alias `index` of the cluster at `url`; user and password may stand in the URL.

    `shape` is that of a new index. `breadth` is the least number of vectors that HNSW looks at in each shard. Nothing
    is sent before the first call.
    """

    def __init__(  # noqa: PLR0913 - the options are named at every call
        self,
        url: str,
        *,
        index: str,
        timeout_s: float,
        api_key: str | None = None,
        ca_file: Path | None = None,
        shape: Shape | None = None,
        breadth: int = BREADTH,
    ) -> None:
        self.index = index
        self._client = connect(url, timeout_s=timeout_s, api_key=api_key, ca_file=ca_file)
        self._index = Index(self._client, index, shape=shape or Shape())
        self._breadth = breadth
        self._probe_s = min(timeout_s, HEALTH_TIMEOUT_S)
        self._refresh = Coalesced(self._refresh_index)

    def prepare(self) -> None:
        """Create index and alias in one step where absent, and wait until the index answers."""
        self._index.prepare()

    def put(self, items: Sequence[Record | Tombstone]) -> list[Written]:
        """Index all; a deletion is a small document of its own, because Elasticsearch soon forgets its own ones."""
        try:
            self._index.check()
        except StoreUnavailable:
            raise
        except StoreError as error:
            # What stands there must not be written to, and an operator can mend it.
            return [Written(Verdict.HELD, str(error)) for _ in items]
        refused: dict[int, Written] = {}
        taken: list[Written] = []
        rest = Written(Verdict.HELD)
        try:
            for result in bulk(self._client, self.index, _lines(items, refused)):
                taken.append(written(result))  # noqa: PERF401 - what was taken before an error counts
        except StoreUnavailable as error:
            if not taken:
                raise
            # To raise would have all written again: under load they might never be through at once.
            rest = Written(Verdict.HELD, str(error))
        outcomes = iter(taken)
        return [refused.get(place) or next(outcomes, rest) for place in range(len(items))]

    def candidates(
        self, queries: NDArray[np.int8], *, limit: int, where: Mapping[str, str] | None = None
    ) -> list[list[Candidate]]:
        """Return the nearest in Hamming distance, for all queries in one request; at most 10,000 for each."""
        found: list[list[Candidate]] = [[] for _ in queries]
        places = [place for place, query in enumerate(queries) if query.any()]
        if places:
            self._index.check()
            searches = [line for place in places for line in ({}, self._nearest(queries[place], limit, where))]
            with our_errors():
                answer = self._client.msearch(index=self.index, searches=searches)
            for place, response in zip(places, answer["responses"], strict=True):
                found[place] = [documents.candidate(hit) for hit in hits(response)]
        return found

    def records(self, filepaths: Sequence[str]) -> dict[str, Record]:
        """Return the records as they were last written: a realtime lookup tells whether a refresh is due."""
        self._index.check()
        found: dict[str, Record] = {}
        for ids in _in_parts(filepaths):
            found |= self._records(ids)
        return found

    def metadata(self, filepaths: Sequence[str]) -> dict[str, Mapping[str, Any] | None]:
        """Return the metadata as it was last written, by one realtime lookup."""
        self._index.check()
        told = [
            one for ids in _in_parts(filepaths) for one in self._documents(ids, source=["path", "deleted", "metadata"])
        ]
        return {one["_source"]["path"]: one["_source"].get("metadata") for one in told if not one["_source"]["deleted"]}

    def filepaths(self, *, offset: int, limit: int, where: Mapping[str, str] | None = None) -> Page:
        """Return filepaths by seq; far offsets are found by counting what lies before a seq, in some 30 steps."""
        filters = [LIVE, *_passing(where)]
        seq, skip = self._start(offset, filters)
        return self._listed(filters, seq=seq, skip=skip, limit=limit) if skip <= PAGE else Page([], seq)

    def filepaths_after(self, seq: int, *, limit: int, where: Mapping[str, str] | None = None) -> Page:
        """Return the filepaths that follow `seq`, as searches see them."""
        return self._listed([LIVE, *_passing(where)], seq=seq + 1, skip=0, limit=limit)

    def count(self, *, where: Mapping[str, str] | None = None) -> int:
        """Return how many pictures searches see."""
        return self._count([LIVE, *_passing(where)])

    def refresh(self) -> None:
        """Refresh; callers that come while a refresh runs share the next."""
        self._refresh()

    def purge(self, *, before: int, limit: int) -> int:
        """Delete old tombstones, save those that something newer has replaced meanwhile; at most 10,000 a call."""
        old = self._search(
            query={"bool": {"filter": [{"term": {"deleted": True}}, {"range": {"added": {"lt": before}}}]}},
            size=min(limit, WINDOW),
            source=False,
            version=True,
        )
        lines = [action("delete", hit["_id"], hit["_version"]) + "\n" for hit in old]
        results = bulk(self._client, self.index, lines)
        return sum(result.get("result") == "deleted" for result in results)

    def health(self) -> Health:
        """Search as a reader would, then ask what keeps writers away: without a master what stands is still found."""
        try:
            if not self._index.exists(within_s=self._probe_s):
                return Health(reads=False, writes=False, detail=f"Elasticsearch: no index {self.index} yet")
            if not self._index.answers_searches(within_s=self._probe_s):
                return Health(reads=False, writes=False, detail=PARTIAL)
        except StoreError as error:
            return Health(reads=False, writes=False, detail=str(error))
        trouble = self._index.why_no_writes(within_s=self._probe_s)
        return Health(reads=True, writes=not trouble, detail=trouble)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _refresh_index(self) -> None:
        with our_errors():
            answer = self._client.indices.refresh(index=self.index)
        if answer["_shards"]["failed"]:
            raise StoreUnavailable(PARTIAL)

    def _search(self, **body: Any) -> list[Json]:  # noqa: ANN401 - passed on to the client as it is
        self._index.check()
        with our_errors():
            answer = self._client.search(index=self.index, track_total_hits=False, **body)
        return hits(answer.body)

    def _count(self, filters: Sequence[Json]) -> int:
        self._index.check()
        with our_errors():
            answer = self._client.count(index=self.index, query={"bool": {"filter": filters}})
        if not is_whole(answer.body):
            raise StoreUnavailable(PARTIAL)
        return int(answer["count"])

    def _records(self, ids: Sequence[str]) -> dict[str, Record]:
        versions = self._versions(ids)
        found = self._by_ids(versions)
        if any(one not in found or found[one]["_version"] < version for one, version in versions.items()):
            self.refresh()
            found = self._by_ids(versions)
        items = [documents.item(hit) for hit in found.values()]
        return {item.filepath: item for item in items if isinstance(item, Record)}

    def _versions(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the versions that stand, also those that no search sees yet."""
        return {doc["_id"]: doc["_version"] for doc in self._documents(ids, source=False)}

    def _documents(self, ids: Sequence[str], *, source: Sequence[str] | bool) -> list[Json]:
        """Return the documents that stand, also those that no search sees yet."""
        with our_errors():
            answer = self._client.mget(index=self.index, ids=ids, source=source)
        if errors := [doc["error"] for doc in answer["docs"] if "error" in doc]:
            message = f"Elasticsearch: {reason(errors[0])}"
            raise StoreUnavailable(message)
        return [doc for doc in answer["docs"] if doc["found"]]

    def _by_ids(self, ids: Mapping[str, int]) -> dict[str, Json]:
        if not ids:
            return {}
        found = self._search(
            query={"ids": {"values": list(ids)}}, size=len(ids), source=True, docvalue_fields=["sig"], version=True
        )
        return {hit["_id"]: hit for hit in found}

    def _listed(self, filters: Sequence[Json], *, seq: int, skip: int, limit: int) -> Page:
        """Return what comes from `seq` on, less the first `skip`."""
        paths: list[str] = []
        while len(paths) < limit:
            size = min(limit - len(paths), PAGE)
            found = self._search(
                query={"bool": {"filter": [*filters, {"range": {"seq": {"gte": seq}}}]}},
                sort=["seq"],
                from_=skip,
                size=size,
                source=False,
                docvalue_fields=["path"],
            )
            paths += [hit["fields"]["path"][0] for hit in found]
            if found:
                seq, skip = found[-1]["sort"][0] + 1, 0
            if len(found) < size:
                break
        return Page(paths, seq - 1)

    def _start(self, offset: int, filters: Sequence[Json]) -> tuple[int, int]:
        """Return a seq, and how many records from there on come before `offset`; few, unless it lies past the end."""
        if offset <= PAGE:
            return 0, offset
        low, high, before = 0, self._newest_seq() + 1, 0
        while offset - before > PAGE and high - low > 1:
            middle = (low + high) // 2
            count = self._count([*filters, {"range": {"seq": {"lt": middle}}}])
            if count <= offset:
                low, before = middle, count
            else:
                high = middle
        return low, offset - before

    def _newest_seq(self) -> int:
        newest = self._search(query=LIVE, sort=[{"seq": "desc"}], size=1, source=False)
        return int(newest[0]["sort"][0]) if newest else 0

    def _nearest(self, query: Signature, limit: int, where: Mapping[str, str] | None) -> Json:
        """Return the search: a picture's score is that of its nearest signature."""
        size = min(limit, WINDOW)
        breadth = {"k": size, "num_candidates": min(max(self._breadth, 2 * size), WINDOW)}
        near = {"query_vector": documents.bits(query), **breadth, "filter": _passing(where)}
        return {
            "query": {"dis_max": {"queries": [{"knn": {"field": field, **near}} for field in VECTORS]}},
            "size": size,
            "_source": False,
            "track_total_hits": False,
            "docvalue_fields": ["path", "sig"],
        }


def _lines(items: Sequence[Record | Tombstone], refused: dict[int, Written]) -> Iterator[str]:
    """Yield each item for a bulk, made when it is its turn; one that has no form goes to `refused`, by its place."""
    for place, item in enumerate(items):
        try:
            lines = documents.lines(item)
        except (ValueError, TypeError, RecursionError) as error:
            refused[place] = Written(Verdict.REJECTED, f"cannot be stored: {error}")
        else:
            yield lines


def _passing(where: Mapping[str, str] | None) -> list[Json]:
    return [{"term": {"labels": label}} for label in wanted(where)]


def _in_parts(filepaths: Sequence[str]) -> Iterator[list[str]]:
    """Yield the names of the filepaths' documents, each once, as many as one request may ask for."""
    ids = [documents.identity(filepath) for filepath in dict.fromkeys(filepaths)]
    yield from (ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE))
