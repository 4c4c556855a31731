"""Searches of an index whose shards restart, and of one that another index replaces."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from common.errors import StoreError
from common.store.elastic.dialects import OpenSearchDialect
from common.store.elastic.index import Existing
from common.store.elastic.responses import ShardsUnavailable
from common.store.elastic.vector_search import PAUSES_S, VectorSearch

WHOLE = {"timed_out": False, "_shards": {"total": 1, "successful": 1}, "hits": {"hits": []}, "status": 200}
RESTARTING = {"error": {"root_cause": [], "reason": "all shards failed", "phase": "can_match"}, "status": 503}
OTHER_VECTORS = {"error": {"root_cause": [], "reason": "all shards failed"}, "status": 400}


class Cluster:
    """A cluster that answers searches with the next of `responses`."""

    dialect = OpenSearchDialect()

    def __init__(self, responses: Iterable[Any]) -> None:
        self.responses = list(responses)
        self.searches = 0

    def post_lines(self, path: str, lines: Iterable[str]) -> dict[str, Any]:
        assert path == "/images/_msearch"
        self.searches += sum(1 for _ in lines)
        return {"responses": [self.responses.pop(0)]}


class Index:
    """The index behind the alias; `names` are those that it has when it is looked up again."""

    name = "images"

    def __init__(self, cluster: Cluster, names: Iterable[str]) -> None:
        self._cluster = cluster
        self._names = list(names)

    def existing(self) -> Existing:
        return Existing(self._names[0], "flat", missing={}, missing_settings={})

    def forget(self) -> None:
        self._names = self._names[1:] or self._names

    def cluster(self) -> Cluster:
        return self._cluster


def search(cluster: Cluster, *names: str) -> list[Any]:
    index: Any = Index(cluster, names)
    query = np.ones(272, dtype=np.int8)
    return VectorSearch(index, vectors="flat", num_candidates=500).nearest(
        [query], limit=5, filters=[], max_distance=0.45
    )


def test_shards_that_restart_are_searched_again() -> None:
    cluster = Cluster([RESTARTING, RESTARTING, WHOLE])

    assert search(cluster, "images-1") == [[]]
    assert cluster.searches == 3


def test_shards_that_stay_away_are_reported() -> None:
    cluster = Cluster([RESTARTING] * 9)

    with pytest.raises(ShardsUnavailable, match="all shards failed"):
        search(cluster, "images-1")

    assert cluster.searches == len(PAUSES_S) + 1


def test_the_next_index_is_searched_after_an_error() -> None:
    cluster = Cluster([OTHER_VECTORS, WHOLE])

    assert search(cluster, "images-1", "images-2") == [[]]


def test_an_error_of_the_same_index_is_not_repeated() -> None:
    cluster = Cluster([OTHER_VECTORS, WHOLE])

    with pytest.raises(StoreError, match="all shards failed"):
        search(cluster, "images-1")

    assert cluster.searches == 1
