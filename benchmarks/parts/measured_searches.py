"""Searches of one index, or of two alternately: their latency and recall."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from parts.collection import Queries, Rows, filepath
from parts.image_match import Peer
from parts.segments import node_cpu_s
from parts.timing import alternately, timed

from common.images.orientations import turn
from common.search import SearchOptions, find_by_signature, page, search
from common.store.elastic import ElasticStore

WARM_UP = 200
ALL_ORIENTATIONS = 60
CPU_ROUNDS = 3


@dataclass
class Side:
    """The measurements of one index; `is_found` has an entry for each query whose original is within the cutoff."""

    rate: float = 0.0
    bytes_per_image: float = 0.0
    one_s: list[float] = field(default_factory=list)
    all_s: list[float] = field(default_factory=list)
    is_found: list[bool] = field(default_factory=list)
    found_of_all: int = 0
    one_cpu_s: float = 0.0
    all_cpu_s: float = 0.0

    @property
    def cpu_ratio(self) -> float:
        """The node's CPU of a search in all orientations, by that of one."""
        return self.all_cpu_s / self.one_cpu_s if self.one_cpu_s else float("nan")

    @property
    def cpu_details(self) -> str:
        return f"{self.all_cpu_s * 1000:.1f} ms, one {self.one_cpu_s * 1000:.1f} ms"

    def p(self, percent: float) -> float:
        return float(np.percentile(self.one_s, percent)) * 1000 if self.one_s else 0.0

    @property
    def recall(self) -> float:
        return float(np.mean(self.is_found)) if self.is_found else 0.0


def search_both(store: ElasticStore, peer: Peer | None, queries: Queries, match_side: Side, peer_side: Side) -> None:
    match_side.one_cpu_s, match_side.all_cpu_s = search_cpu_s(store, sample_of(queries))
    if peer is None:
        side = search_store(store, 100, queries)
        match_side.one_s, match_side.is_found, match_side.found_of_all = side.one_s, side.is_found, side.found_of_all
        match_side.all_s = [
            timed(lambda s=one: search([s], store, all_orientations=True))[0] for one in sample_of(queries)
        ]
        return

    def sixteen(signature: Rows) -> object:
        return [peer.search(turned) for turned in turn(signature)]

    for signature in queries.signatures[:: max(1, len(queries.signatures) // WARM_UP)]:
        near_images(signature, store)
        peer.search(signature)
    for index, signature in enumerate(queries.signatures):
        # Default arguments bind the loop variable.
        results = alternately(index, lambda s=signature: near_images(s, store), lambda s=signature: peer.search(s))
        for side, (spent, matches) in zip((match_side, peer_side), results, strict=True):
            side.one_s.append(spent)
            count_matches(side, matches, queries, index)
    sample = sample_of(queries)
    for index, signature in enumerate(sample):
        results = alternately(
            index, lambda s=signature: search([s], store, all_orientations=True), lambda s=signature: sixteen(s)
        )
        # The first tenth is the warm-up.
        if index >= len(sample) // 10:
            match_side.all_s.append(results[0][0])
            peer_side.all_s.append(results[1][0])


def near_images(signature: Rows, store: ElasticStore, limit: int = 100) -> list[str]:
    """Search as the service does; return all images within the cutoff, also flat ones that only a sketch confirms."""
    options = SearchOptions(all_orientations=False, limit=limit)
    result = find_by_signature([signature], store, options)
    page(result.matches, store, options)
    return [match.filepath for match in (*result.matches, *result.unconfirmed)]


def search_cpu_s(store: ElasticStore, sample: Rows) -> tuple[float, float]:
    """Return the node's CPU seconds of a search in one orientation, and in all: the medians of alternating rounds."""
    cluster = store._connection.cluster()  # noqa: SLF001 - for statistics of the node
    spent: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(CPU_ROUNDS):
        for is_all, seconds in spent.items():
            before = node_cpu_s(cluster)
            for signature in sample:
                search([signature], store, all_orientations=is_all)
            seconds.append((node_cpu_s(cluster) - before) / len(sample))
    return median(spent[False]), median(spent[True])


def sample_of(queries: Queries) -> Rows:
    return queries.signatures[:: max(1, len(queries.signatures) // ALL_ORIENTATIONS)]


def count_matches(side: Side, matches: Sequence[str], queries: Queries, index: int) -> None:
    """Compare the matches of a query with the rows within the cutoff."""
    near, original = queries.near[index], queries.originals[index]
    side.found_of_all += len({filepath(row) for row in near}.intersection(matches))
    if original in near:
        side.is_found.append(filepath(original) in matches)


def search_store(store: ElasticStore, limit: int, queries: Queries) -> Side:
    side = Side()
    for signature in queries.signatures[:: max(1, len(queries.signatures) // WARM_UP)]:
        near_images(signature, store, limit)
    for index, signature in enumerate(queries.signatures):
        spent, matches = timed(lambda s=signature: near_images(s, store, limit))
        side.one_s.append(spent)
        count_matches(side, matches, queries, index)
    return side
