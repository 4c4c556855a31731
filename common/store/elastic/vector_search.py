"""Searches for the nearest vectors: several queries share a search, which costs the server less than one each."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError, StoreUnavailable
from common.images.signature import Signature
from common.store.base import Candidate
from common.store.elastic import documents
from common.store.elastic.cluster import Cluster
from common.store.elastic.dialects import Dialect, Json, Vectors, bits, bits_within
from common.store.elastic.index import Existing, Index
from common.store.elastic.mapping import VECTORS
from common.store.elastic.num_candidates import LEAST, NumCandidates
from common.store.elastic.parts import parts
from common.store.elastic.responses import ShardsUnavailable, hits

# The server rejects from + size, and num_candidates, above 10,000.
WINDOW = 10_000
# A search costs the server 2.5 ms of CPU besides its queries. Queries of a search run one after the other.
QUERIES_PER_SEARCH = 16
# A response has all hits of a request's searches, and the time-out is for one request.
QUERIES_PER_REQUEST = 64
# While the hits of one request are decoded, the server works on the other.
REQUESTS_AT_ONCE = 2
# A search waits so long for the sizes of the segments, at most once a minute.
SEGMENTS_WITHIN_S = 2.0
# Before searches of shards that do not answer. OpenSearch 2.19 restarts the shards of flat vectors, in under half a
# second, when a reindex or an upgrade changes the mapping.
PAUSES_S = (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class _Nearest:
    """The options of all queries of a call."""

    limit: int
    filters: Sequence[Json]
    most_bits: int | None
    num_candidates: int

    @property
    def queries_per_search(self) -> int:
        """The number of queries whose hits a search can return; without a bound each returns `limit`."""
        if self.most_bits is None:
            return 1
        return max(1, min(QUERIES_PER_SEARCH, WINDOW // (self.limit * len(VECTORS))))

    def size(self, queries: int) -> int:
        """Return the most hits of a search."""
        return min(self.limit if queries == 1 else self.limit * queries * len(VECTORS), WINDOW)


class VectorSearch:
    """Searches in the index, or in a new one with `vectors`.

    HNSW considers `num_candidates` vectors in each shard, or as many as its segments need.
    """

    def __init__(self, index: Index, *, vectors: Vectors, num_candidates: int | None) -> None:
        self._index = index
        self._vectors = vectors
        self._fixed = num_candidates
        self._chosen = NumCandidates(lambda: index.segments(within_s=SEGMENTS_WITHIN_S))

    def nearest(
        self, queries: Sequence[Signature], *, limit: int, filters: Sequence[Json], max_distance: float | None
    ) -> list[list[Candidate]]:
        """Return the candidates of each query, which is not featureless; at most 10,000 for each.

        The alias may move at any time to an index with other vectors, and a query for one kind may fail on the other.
        Shards that restart are searched again after a pause.
        """
        size = min(limit, WINDOW)
        most_bits = None if max_distance is None else bits_within(max_distance)
        pauses = iter(PAUSES_S)
        while True:
            existing = self._index.existing()
            nearest = _Nearest(size, filters, most_bits, max(self._num_candidates(existing), size))
            try:
                return self._search(existing, queries, nearest)
            except ShardsUnavailable:
                if (pause := next(pauses, None)) is None:
                    raise
                sleep(pause)
                self._index.forget()
            except StoreUnavailable:
                raise
            except StoreError:
                self._index.forget()
                if self._index.existing() == existing:
                    raise

    def _num_candidates(self, existing: Existing | None) -> int:
        if self._fixed is not None:
            return self._fixed
        # Without a graph all vectors are compared.
        return self._chosen.of(existing.name) if existing and existing.vectors == "hnsw" else LEAST

    def _search(
        self, existing: Existing | None, queries: Sequence[Signature], nearest: _Nearest
    ) -> list[list[Candidate]]:
        cluster = self._index.cluster()
        vectors = existing.vectors if existing else self._vectors
        decoder = documents.CandidateDecoder()
        indices: set[str] = set()

        def send(some: Sequence[Signature], together: int) -> list[list[Candidate]]:
            groups = parts(some, together)
            searches = (_search_body(group, nearest, vectors, cluster.dialect) for group in groups)
            results: list[list[Candidate]] = []
            for group, matches in zip(groups, self._send(cluster, searches), strict=True):
                indices.update(hit["_index"] for hit in matches[:1])
                if len(group) > 1 and len(matches) >= nearest.size(len(group)):
                    # Of several shards, the hits of one query may have displaced those of another.
                    results += send(group, 1)
                    continue
                # Decoded here: a hit takes several times the memory of a candidate, which searches share.
                candidates = [decoder.candidate(hit) for hit in matches]
                results += _divided(candidates, group, nearest.most_bits)
            return results

        requests = parts(queries, QUERIES_PER_REQUEST)
        if len(requests) == 1:
            result = send(requests[0], nearest.queries_per_search)
        else:
            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
                results = threads.map(lambda part: send(part, nearest.queries_per_search), requests)
                result = [candidates for part in results for candidates in part]
        if existing is not None and indices - {existing.name}:
            self._index.forget()
        return result

    def _send(self, cluster: Cluster, searches: Iterator[Json]) -> Iterator[list[Json]]:
        lines = (f"{{}}\n{json.dumps(search)}\n" for search in searches)
        responses = cluster.post_lines(f"/{self._index.name}/_msearch", lines)["responses"]
        return (hits(response) for response in responses)


def _search_body(queries: Sequence[Signature], nearest: _Nearest, vectors: Vectors, dialect: Dialect) -> Json:
    """Return a search; dis_max takes the score of the nearest pair of a query and a signature of the image."""
    clauses = [
        dialect.nearest(
            field,
            query,
            vectors=vectors,
            k=nearest.limit,
            num_candidates=nearest.num_candidates,
            filters=nearest.filters,
        )
        for query in queries
        for field in VECTORS
    ]
    body: dict[str, Any] = {
        "query": {"dis_max": {"queries": clauses}},
        "size": nearest.size(len(queries)),
        "_source": False,
        # Without it the server decompresses the stored fields of each hit for its _id.
        "stored_fields": "_none_",
        "track_total_hits": False,
        "docvalue_fields": ["path", "sig"],
    }
    if nearest.most_bits is not None:
        body["min_score"] = dialect.least_score(nearest.most_bits)
    return body


def _divided(
    candidates: list[Candidate], queries: Sequence[Signature], most_bits: int | None
) -> Iterator[list[Candidate]]:
    """Yield the candidates of each query of a search, nearest first."""
    if len(queries) == 1 or most_bits is None or not candidates:
        yield from [candidates] * len(queries)
        return
    vectors = bits(np.stack([signature for candidate in candidates for signature in candidate.signatures]))
    starts = np.cumsum([0, *(len(candidate.signatures) for candidate in candidates[:-1])])
    for query in queries:
        differing: NDArray[np.int64] = np.bitwise_count(vectors ^ bits(query)).sum(axis=1, dtype=np.int64)
        nearest = np.minimum.reduceat(differing, starts)
        order = np.argsort(nearest, kind="stable")
        yield [candidates[index] for index in order[nearest[order] <= most_bits].tolist()]
