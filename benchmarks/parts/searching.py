"""Searches in one index or in two by turns: how long they take, and what they find."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from parts.collection import Queries, Rows, filepath
from parts.image_match import Peer
from parts.timing import in_turns, timed

from common.images.orientations import turn
from common.search import search
from common.store.elastic import ElasticStore

WARM_UP = 200
TURNED = 60


@dataclass
class Side:
    """What was measured of one index."""

    rate: float = 0.0
    bytes_an_image: float = 0.0
    one_s: list[float] = field(default_factory=list)
    all_s: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    found_of_all: int = 0

    def p(self, percent: float) -> float:
        return float(np.percentile(self.one_s, percent)) * 1000 if self.one_s else 0.0

    @property
    def share(self) -> float:
        return float(np.mean(self.found)) if self.found else 0.0


def searches(store: ElasticStore, peer: Peer | None, queries: Queries, ours: Side, theirs: Side) -> None:
    if peer is None:
        side = alone(store, 100, queries)
        ours.one_s, ours.found, ours.found_of_all = side.one_s, side.found, side.found_of_all
        ours.all_s = [timed(lambda s=one: search(s, store, all_orientations=True))[0] for one in some_of(queries)]
        return

    def one(signature: Rows) -> list[str]:
        return [match.filepath for match in search(signature, store, all_orientations=False)]

    def sixteen(signature: Rows) -> object:
        return [peer.search(turned) for turned in turn(signature)]

    for signature in queries.signatures[:: max(1, len(queries.signatures) // WARM_UP)]:
        one(signature)
        peer.search(signature)
    for place, signature in enumerate(queries.signatures):
        # Bound now: called before the next turn.
        answers = in_turns(place, lambda s=signature: one(s), lambda s=signature: peer.search(s))
        for side, (spent, found) in zip((ours, theirs), answers, strict=True):
            side.one_s.append(spent)
            note(side, found, queries, place)
    some = some_of(queries)
    for place, signature in enumerate(some):
        answers = in_turns(
            place, lambda s=signature: search(s, store, all_orientations=True), lambda s=signature: sixteen(s)
        )
        # The first few warm up.
        if place >= len(some) // 10:
            ours.all_s.append(answers[0][0])
            theirs.all_s.append(answers[1][0])


def some_of(queries: Queries) -> Rows:
    return queries.signatures[:: max(1, len(queries.signatures) // TURNED)]


def note(side: Side, found: Sequence[str], queries: Queries, place: int) -> None:
    """Count what was to be found."""
    near, original = queries.near[place], queries.originals[place]
    side.found_of_all += len({filepath(row) for row in near}.intersection(found))
    if original in near:
        side.found.append(filepath(original) in found)


def alone(store: ElasticStore, limit: int, queries: Queries) -> Side:
    side = Side()
    for signature in queries.signatures[:: max(1, len(queries.signatures) // WARM_UP)]:
        search(signature, store, all_orientations=False, limit=limit)
    for place, signature in enumerate(queries.signatures):
        spent, found = timed(lambda s=signature: search(s, store, all_orientations=False, limit=limit))
        side.one_s.append(spent)
        note(side, [match.filepath for match in found], queries, place)
    return side
