"""The store in Elasticsearch or OpenSearch: sequence numbers are document versions, and searches use bit vectors."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError, StoreUnavailable
from common.store.base import (
    DEFAULT_COLLECTION,
    DEFAULT_SELECTION,
    Candidate,
    Collection,
    Disk,
    Health,
    Item,
    Page,
    Patch,
    Record,
    Selection,
    Tombstone,
    Verdict,
    WordCandidate,
    Written,
)
from common.store.elastic import documents
from common.store.elastic.bulk import action, bulk, written
from common.store.elastic.catalogue import Catalogue
from common.store.elastic.cluster import Cluster
from common.store.elastic.coalesced import Coalesced
from common.store.elastic.connection import Connection, Signer
from common.store.elastic.dialects import Dialect, Json
from common.store.elastic.index import Index
from common.store.elastic.mapping import LIVE, Shape, in_collection
from common.store.elastic.parts import parts
from common.store.elastic.patching import Patching
from common.store.elastic.responses import PARTIAL, hits
from common.store.elastic.vector_search import WINDOW, VectorSearch
from common.store.labels import required_labels

HEALTH_TIMEOUT_S = 3.0
# A page shares the window with the records before it.
PAGE = WINDOW // 2
IDS_PER_REQUEST = 1_000
# Bytes of a bound. Before version 3, OpenSearch builds an automaton of a longer lower bound, and rejects it.
LOWER_BOUND_MAX = 1_000


class ElasticStore:
    """Store behind the alias `index` of the cluster at `url`, which may contain user and password.

    `shape` applies to a new index. `num_candidates` is that of HNSW searches, by default as many as the segments need.
    The first call opens the connection.
    """

    def __init__(  # noqa: PLR0913 - the options are keyword arguments
        self,
        url: str,
        *,
        index: str,
        timeout_s: float,
        api_key: str | None = None,
        ca_file: Path | None = None,
        signer: Signer | None = None,
        shape: Shape | None = None,
        num_candidates: int | None = None,
    ) -> None:
        self.index = index
        self._connection = Connection(
            url, index=index, timeout_s=timeout_s, api_key=api_key, ca_file=ca_file, signer=signer
        )
        shape = shape or Shape()
        self._index = Index(self._connection, index, shape=shape)
        self._catalogue = Catalogue(self._index)
        self._vector_search = VectorSearch(self._index, vectors=shape.vectors, num_candidates=num_candidates)
        self._probe_s = min(timeout_s, HEALTH_TIMEOUT_S)
        self._refresh = Coalesced(self._refresh_index)
        self._patching = Patching(self._index, refresh=self._refresh)

    def prepare(self) -> None:
        """Create index and alias in one step if absent, and wait until all shards are active."""
        self._index.prepare()

    def put(self, items: Sequence[Item]) -> list[Written]:
        """Index records and tombstones, then apply patches: those of this call, and earlier ones of its records."""
        try:
            cluster = self._index.complete()
        except StoreUnavailable:
            raise
        except StoreError as error:
            # The index must not be written to; an operator can repair it.
            return [Written(Verdict.RETRY, str(error)) for _ in items]
        whole = {index: item for index, item in enumerate(items) if not isinstance(item, Patch)}
        outcomes = dict(zip(whole, self._put(cluster, list(whole.values())), strict=True))
        for index, item in enumerate(items):
            if isinstance(item, Patch):
                outcomes[index] = self._patching.patch(item)
        return [outcomes[index] for index in range(len(items))]

    def _put(self, cluster: Cluster, items: Sequence[Record | Tombstone]) -> list[Written]:
        outcomes = self._index_all(cluster, items)
        conflicts = [index for index, outcome in enumerate(outcomes) if outcome.verdict is Verdict.SUPERSEDED]
        for index, outcome in zip(conflicts, self._patching.resolve([items[i] for i in conflicts]), strict=True):
            outcomes[index] = outcome
        stored = {
            index: item
            for index, item in enumerate(items)
            if isinstance(item, Record) and outcomes[index].verdict is Verdict.STORED
        }
        for index, outcome in zip(stored, self._patching.apply(list(stored.values())), strict=True):
            outcomes[index] = outcome
        return outcomes

    def _index_all(self, cluster: Cluster, items: Sequence[Record | Tombstone]) -> list[Written]:
        """Index all items. A deletion is a small document, because the server purges its own tombstones soon."""
        rejected: dict[int, Written] = {}
        completed: list[Written] = []
        rest = Written(Verdict.RETRY)
        try:
            for result in bulk(cluster, self.index, _lines(items, cluster.dialect, rejected)):
                completed.append(written(result))  # noqa: PERF401 - results before an error are kept
        except StoreUnavailable as error:
            if not completed:
                raise
            # Raising would repeat all writes: under load they might never succeed together.
            rest = Written(Verdict.RETRY, str(error))
        outcomes = iter(completed)
        return [rejected.get(index) or next(outcomes, rest) for index in range(len(items))]

    def candidates(
        self,
        queries: NDArray[np.int8],
        *,
        limit: int,
        selection: Selection = DEFAULT_SELECTION,
        max_distance: float | None = None,
    ) -> list[list[Candidate]]:
        """Return the nearest by Hamming distance; at most 10,000 for each query."""
        candidates: list[list[Candidate]] = [[] for _ in queries]
        featured = [index for index, query in enumerate(queries) if query.any()]
        if featured:
            results = self._vector_search.nearest(
                [queries[index] for index in featured],
                limit=limit,
                filters=_filters(selection),
                max_distance=max_distance,
            )
            for index, nearest in zip(featured, results, strict=True):
                candidates[index] = nearest
        return candidates

    def candidates_by_words(
        self, words: NDArray[np.uint32], *, limit: int, selection: Selection = DEFAULT_SELECTION
    ) -> list[WordCandidate]:
        """Return the highest sums of idf, which are those of each shard; at most 10,000."""
        shared = {"match": {"words": documents.word_text(words)}}
        matches = self._search(
            {
                "query": {"bool": {"must": shared, "filter": _filters(selection)}},
                "size": min(limit, WINDOW),
                "_source": False,
                "docvalue_fields": ["path", "features"],
            }
        )
        return [documents.word_candidate(hit) for hit in matches]

    def records(self, filepaths: Sequence[str], *, collection: str = DEFAULT_COLLECTION) -> dict[str, Record]:
        """Return the latest records: a realtime lookup shows whether a refresh is necessary."""
        records: dict[str, Record] = {}
        for ids in _batches(filepaths, collection):
            records |= self._records(ids)
        return records

    def metadata(
        self,
        filepaths: Sequence[str],
        *,
        collection: str = DEFAULT_COLLECTION,
    ) -> dict[str, Mapping[str, Any] | None]:
        """Return the latest metadata, by a realtime lookup."""
        fields = "path,deleted,metadata"
        sources = [
            doc["_source"] for ids in _batches(filepaths, collection) for doc in self._documents(ids, source=fields)
        ]
        return {source["path"]: source.get("metadata") for source in sources if not source["deleted"]}

    def filepaths(self, *, offset: int, limit: int, selection: Selection = DEFAULT_SELECTION) -> Page:
        """Return filepaths by seq; a binary search by counts, of about 30 requests, finds a large offset."""
        filters = [LIVE, *_filters(selection)]
        seq, skip = self._start(offset, filters)
        return self._page(filters, seq=seq, skip=skip, limit=limit) if skip <= PAGE else Page([], seq)

    def filepaths_after(self, seq: int, *, limit: int, selection: Selection = DEFAULT_SELECTION) -> Page:
        """Return the filepaths with a higher seq, of the last refresh."""
        return self._page([LIVE, *_filters(selection)], seq=seq + 1, skip=0, limit=limit)

    def count(self, *, selection: Selection = DEFAULT_SELECTION) -> int:
        """Return the number of images at the last refresh."""
        return self._catalogue.count([LIVE, *_filters(selection)])

    def collections(self) -> list[Collection]:
        """Return all collections of the last refresh."""
        return self._catalogue.collections()

    def collection(self, name: str) -> Collection | None:
        """Return one collection; its number of images is that of the last refresh."""
        return self._catalogue.collection(name)

    def create_collection(self, name: str) -> None:
        """Add an entry, unless there is one."""
        self._catalogue.create(name)

    def put_collection(self, name: str, *, max_images: int | None) -> None:
        """Add or change an entry."""
        self._catalogue.put(name, max_images=max_images)

    def delete_collection(self, name: str) -> bool:
        """Delete the entry of a collection without images."""
        self.refresh()
        return self._catalogue.delete(name)

    def refresh(self) -> None:
        """Refresh; callers during a running refresh share the next one."""
        self._refresh()

    def purge(self, *, before: int, limit: int) -> int:
        """Delete old tombstones and patches that were not overwritten meanwhile; at most 10,000 per call."""
        filters = [{"term": {"deleted": True}}, {"range": {"added": {"lt": before}}}]
        query = {"bool": {"filter": filters}}
        old = self._search({"query": query, "size": min(limit, WINDOW), "_source": False, "version": True})
        lines = [action("delete", hit["_id"], hit["_version"]) + "\n" for hit in old]
        results = bulk(self._index.cluster(), self.index, lines)
        return sum(result.get("result") == "deleted" for result in results)

    def health(self) -> Health:
        """Check reads by a count, then writes separately: without a master only reads succeed."""
        try:
            if self._index.existing(within_s=self._probe_s) is None:
                return Health(reads=False, writes=False, detail=f"the index {self.index} does not exist yet")
            if not self._index.answers_searches(within_s=self._probe_s):
                return Health(reads=False, writes=False, detail=PARTIAL)
        except StoreError as error:
            return Health(reads=False, writes=False, detail=str(error))
        problem = self._index.why_no_writes(within_s=self._probe_s)
        return Health(reads=True, writes=not problem, detail=problem)

    def disk(self) -> Disk:
        """Return the size of the index, and the bytes that its fullest node has free."""
        cluster = self._connection.cluster(within_s=self._probe_s)
        stats = cluster.get(f"/{self.index}/_stats/store", filter_path="_all.total.store.size_in_bytes")
        return Disk(stats["_all"]["total"]["store"]["size_in_bytes"], _free_bytes(cluster))

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _refresh_index(self) -> None:
        response = self._connection.cluster().post(f"/{self.index}/_refresh")
        if response["_shards"]["failed"]:
            raise StoreUnavailable(PARTIAL)

    def _search(self, body: Json) -> list[Json]:
        return hits(self._index.cluster().post(f"/{self.index}/_search", {"track_total_hits": False, **body}))

    def _records(self, ids: Sequence[str]) -> dict[str, Record]:
        versions = self._versions(ids)
        existing = self._by_ids(versions)
        if any(one not in existing or existing[one]["_version"] < version for one, version in versions.items()):
            self.refresh()
            existing = self._by_ids(versions)
        items = [documents.item(hit) for hit in existing.values()]
        return {item.filepath: item for item in items if isinstance(item, Record)}

    def _versions(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the current versions, also of documents that are not refreshed yet."""
        return {doc["_id"]: doc["_version"] for doc in self._documents(ids, source="false")}

    def _documents(self, ids: Sequence[str], *, source: str) -> list[Json]:
        """Return the current documents, also those that are not refreshed yet; `source` names their fields."""
        docs = self._index.cluster().documents(self.index, ids, _source=source)
        return [doc for doc in docs if doc["found"]]

    def _by_ids(self, ids: Mapping[str, int]) -> dict[str, Json]:
        if not ids:
            return {}
        matches = self._search(
            {
                "query": {"ids": {"values": list(ids)}},
                "size": len(ids),
                "_source": True,
                "docvalue_fields": documents.BINARY,
                "version": True,
            }
        )
        return {hit["_id"]: hit for hit in matches}

    def _page(self, filters: Sequence[Json], *, seq: int, skip: int, limit: int) -> Page:
        """Return a page from `seq` on, without the first `skip`."""
        paths: list[str] = []
        while len(paths) < limit:
            size = min(limit - len(paths), PAGE)
            matches = self._search(
                {
                    "query": {"bool": {"filter": [*filters, {"range": {"seq": {"gte": seq}}}]}},
                    "sort": ["seq"],
                    "from": skip,
                    "size": size,
                    "_source": False,
                    "docvalue_fields": ["path"],
                }
            )
            paths += [hit["fields"]["path"][0] for hit in matches]
            if matches:
                seq, skip = matches[-1]["sort"][0] + 1, 0
            if len(matches) < size:
                break
        return Page(paths, seq - 1)

    def _start(self, offset: int, filters: Sequence[Json]) -> tuple[int, int]:
        """Return a seq and the number of records from it to `offset`; at most PAGE unless `offset` is past the end."""
        if offset <= PAGE:
            return 0, offset
        low, high, before = 0, self._newest_seq() + 1, 0
        while offset - before > PAGE and high - low > 1:
            middle = (low + high) // 2
            count = self._catalogue.count([*filters, {"range": {"seq": {"lt": middle}}}])
            if count <= offset:
                low, before = middle, count
            else:
                high = middle
        return low, offset - before

    def _newest_seq(self) -> int:
        newest = self._search({"query": LIVE, "sort": [{"seq": "desc"}], "size": 1, "_source": False})
        return int(newest[0]["sort"][0]) if newest else 0


def _free_bytes(cluster: Cluster) -> int | None:
    try:
        nodes = cluster.get("/_nodes/data:true/stats/fs", filter_path="nodes.*.fs.total.available_in_bytes")["nodes"]
    except StoreUnavailable:
        raise
    except StoreError:
        # The user may lack the privilege to monitor the cluster.
        return None
    return int(min(node["fs"]["total"]["available_in_bytes"] for node in nodes.values()))


def _lines(items: Sequence[Record | Tombstone], dialect: Dialect, rejected: dict[int, Written]) -> Iterator[str]:
    """Yield the bulk lines of each item, created lazily; an item without JSON is added to `rejected` by its index."""
    for index, item in enumerate(items):
        try:
            lines = documents.lines(item, dialect)
        except (ValueError, TypeError, RecursionError) as error:
            rejected[index] = Written(Verdict.REJECTED, f"cannot be stored: {error}")
        else:
            yield lines


def _filters(selection: Selection) -> list[Json]:
    filters = [in_collection(selection.collection)]
    if selection.filepath_prefix:
        filters.append(_path_between(selection.filepath_prefix, selection.filepaths_end))
    return filters + [{"term": {"labels": label}} for label in required_labels(selection.where)]


def _path_between(first: str, end: str | None) -> Json:
    """Return the query for filepaths from `first` on that are before `end`."""
    below = {} if end is None else {"lt": end}
    if len(first.encode()) <= LOWER_BOUND_MAX:
        return {"range": {"path": {"gte": first, **below}}}
    upper = {"range": {"path": below}} if below else {"exists": {"field": "path"}}
    return {"bool": {"filter": [upper], "must_not": [{"range": {"path": {"lt": first}}}]}}


def _batches(filepaths: Sequence[str], collection: str) -> Sequence[Sequence[str]]:
    """Return the ids of the filepaths' documents without repeats, in batches of one request."""
    return parts([documents.identity(filepath, collection) for filepath in dict.fromkeys(filepaths)], IDS_PER_REQUEST)
