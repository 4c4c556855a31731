"""The scan in memory compared with brute force, while rows are added and removed."""

import numpy as np
import pytest
from numpy.typing import NDArray

from common.images.signature import LENGTH, distances
from common.store.sqlite.scan import Scan

Alive = dict[int, NDArray[np.int8]]
NO_ROWS = np.zeros((0, LENGTH), np.int8)


def add(scan: Scan, alive: Alive, rng: np.random.Generator, *, first: int, count: int) -> None:
    """Add owners that have one to three signatures each."""
    new = {first + n: rng.integers(-2, 3, (int(rng.integers(1, 4)), LENGTH)).astype(np.int8) for n in range(count)}
    owners = np.repeat(np.array(list(new), np.int64), [len(rows) for rows in new.values()])
    scan.append(owners, np.concatenate([NO_ROWS, *new.values()]))
    alive |= new


def nearness(alive: Alive, query: NDArray[np.int8]) -> dict[int, float]:
    return {owner: float(distances(query, rows).min()) for owner, rows in alive.items()}


@pytest.mark.parametrize("block", [7, 64, 1_024])
@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch, block: int, seed: int) -> None:
    monkeypatch.setattr("common.store.sqlite.scan.BLOCK", block)
    rng = np.random.default_rng(seed)
    scan, alive = Scan(), Alive()
    for step in range(25):
        add(scan, alive, rng, first=1 + 100 * step, count=int(rng.integers(0, 60)))
        gone = rng.choice(list(alive), len(alive) // 5, replace=False) if alive else np.zeros(0, np.int64)
        scan.forget(np.append(gone, 10**6))
        alive = {owner: rows for owner, rows in alive.items() if owner not in gone}
    halves = rng.integers(-2, 3, (3, LENGTH)).astype(np.int8)
    queries = np.concatenate([halves, -halves])

    results = scan.nearest(queries, limit=20)

    for query, owners in zip(queries, results, strict=True):
        expected = nearness(alive, query)
        assert [expected[owner] for owner in owners] == pytest.approx(sorted(expected.values())[:20], rel=1e-12)


def test_a_featureless_query_has_no_candidates() -> None:
    scan = Scan()
    add(scan, {}, np.random.default_rng(1), first=1, count=5)

    assert scan.nearest(np.zeros((1, LENGTH), np.int8), limit=5) == [[]]


def test_equal_distances_keep_the_order_of_insertion() -> None:
    scan = Scan()
    row = np.ones((1, LENGTH), np.int8)
    scan.append(np.arange(1, 2_001), row.repeat(2_000, axis=0))

    assert scan.nearest(row, limit=30) == [list(range(1, 31))]


def test_extreme_values_do_not_overflow() -> None:
    scan = Scan()
    full = np.full((1, LENGTH), -2, np.int8)
    scan.append(np.array([1, 2]), np.concatenate([-full, full]))

    assert scan.nearest(full, limit=2) == [[2, 1]]
