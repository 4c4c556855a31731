"""The scan compared with brute force, and the form of signatures as bits."""

import numpy as np
import pytest
from numpy.typing import NDArray

from common.images.orientations import turn
from common.images.signature import FIRST, GRID, LENGTH, SECOND, distances
from common.store.sqlite.blocks import EMPTY, Block, join, pack, unpack
from common.store.sqlite.projection import ProjectedQueries
from common.store.sqlite.scan import Live, bits_within, nearest

Rows = NDArray[np.int8]
NONE_DEAD = np.zeros(0, np.intp)


def random_rows(rng: np.random.Generator, count: int) -> Rows:
    return rng.integers(-2, 3, (count, LENGTH)).astype(np.int8)


def block_of(rows: Rows, *, ids: list[int] | None = None) -> Block:
    return pack(np.array(range(1, len(rows) + 1) if ids is None else ids, np.int64), rows)


def nearness(block: Block, query: Rows, among: set[int]) -> dict[int, float]:
    apart = distances(query, unpack(block)).tolist()
    pairs = [(apart, image) for image, apart in zip(block.keys.tolist(), apart, strict=True) if image in among]
    return {image: apart for apart, image in sorted(pairs, reverse=True)}


def copies(rng: np.random.Generator, row: Rows, *, shares: list[float]) -> Rows:
    """Return copies with these shares of the values drawn again."""
    rows = np.repeat(row[None], len(shares), axis=0)
    redrawn = rng.random(rows.shape) < np.array(shares)[:, None]
    rows[redrawn] = rng.integers(-2, 3, int(redrawn.sum()))
    return rows


@pytest.mark.parametrize("chunk", [7, 64, 16_384])
@pytest.mark.parametrize("limit", [1, 20, 5_000])
@pytest.mark.parametrize("queries", [1, 16])
def test_the_nearest_are_those_of_brute_force(
    monkeypatch: pytest.MonkeyPatch, chunk: int, limit: int, queries: int
) -> None:
    monkeypatch.setattr("common.store.sqlite.scan.CHUNK", chunk)
    monkeypatch.setattr("common.store.sqlite.scan.PENDING", 10 * chunk)
    rng = np.random.default_rng(chunk)
    rows = random_rows(rng, 3_000)
    asked = np.concatenate([rows[:8], -rows[:8]])[:queries]
    rows[100:200] = copies(rng, rows[0], shares=np.linspace(0, 0.6, 100).tolist())
    ids = np.sort(rng.integers(1, 1_500, len(rows))).tolist()
    blocks = [block_of(rows[:2_000], ids=ids[:2_000]), block_of(rows[2_000:], ids=[3_000 + n for n in ids[2_000:]])]
    dead = np.flatnonzero(blocks[0].keys % 5 == 0)
    among = {image for image in [*ids[:2_000:3], *range(4_000, 4_500)] if image % 5}

    results = nearest([Live(blocks[0], dead), Live(blocks[1], NONE_DEAD)], asked, limit=limit)
    filtered = nearest(
        [Live(blocks[0], dead), Live(blocks[1], NONE_DEAD)], asked, limit=limit, among=np.array(sorted(among), np.int64)
    )

    whole = join(blocks)
    alive = {image for image in whole.keys.tolist() if image >= 3_000 or image % 5}
    for allowed, images_per_query in ((alive, results), (among, filtered)):
        for query, images in zip(asked, images_per_query, strict=True):
            expected = nearness(whole, query, allowed)
            assert [expected[image] for image in images] == pytest.approx(sorted(expected.values())[:limit])


def test_images_beyond_the_largest_distance_are_omitted() -> None:
    rng = np.random.default_rng(2)
    rows = np.concatenate([copies(rng, random_rows(rng, 1)[0], shares=[0, *np.linspace(0, 0.7, 300).tolist()])])

    (images,) = nearest([Live(block_of(rows), NONE_DEAD)], rows[:1], limit=1_000, max_distance=0.45)

    expected = np.flatnonzero(distances(rows[0], rows) <= 0.45) + 1
    assert 20 < len(expected) < 280
    assert sorted(images) == expected.tolist()


@pytest.mark.parametrize("limit", [3, 1_000])
def test_orientations_find_their_nearest_within_a_distance(limit: int) -> None:
    rng = np.random.default_rng(3)
    asked = turn(random_rows(rng, 1)[0])
    near = [copies(rng, query, shares=np.linspace(0, 0.7, 20).tolist()) for query in asked]
    rows = np.concatenate([*near, random_rows(rng, 200), np.zeros((1, LENGTH), np.int8)])
    block, dead = block_of(rows), np.arange(0, len(rows), 7)

    results = nearest([Live(block, dead)], asked, limit=limit, max_distance=0.45)

    alive = set(block.keys.tolist()) - set(block.keys[dead].tolist())
    for query, images in zip(asked, results, strict=True):
        expected = {image: apart for image, apart in nearness(block, query, alive).items() if apart <= 0.45}
        assert len(expected) > 5
        assert [expected[image] for image in images] == pytest.approx(sorted(expected.values())[:limit])


def test_a_featureless_query_has_no_candidates() -> None:
    block = block_of(random_rows(np.random.default_rng(1), 5))
    queries = np.concatenate([np.zeros((1, LENGTH), np.int8), unpack(block)[2:3]])

    assert nearest([Live(block, NONE_DEAD)], queries, limit=1) == [[], [3]]


def test_equal_distances_are_in_the_order_of_ids() -> None:
    row = np.ones((1, LENGTH), np.int8)
    block = block_of(row.repeat(2_000, axis=0))

    assert nearest([Live(block, NONE_DEAD)], row, limit=30) == [list(range(1, 31))]


def test_extreme_values_do_not_overflow() -> None:
    full = np.full((1, LENGTH), -2, np.int8)

    assert nearest([Live(block_of(np.concatenate([-full, full])), NONE_DEAD)], full, limit=2) == [[2, 1]]


def test_no_signatures_have_no_nearest() -> None:
    assert nearest([Live(EMPTY, NONE_DEAD)], np.ones((2, LENGTH), np.int8), limit=3) == [[], []]


def test_bits_are_unpacked_unchanged() -> None:
    rows = random_rows(np.random.default_rng(1), 500)

    block = block_of(rows)

    assert np.array_equal(unpack(block), rows)
    assert block.nbytes / len(rows) <= 110


def test_largest_number_of_differing_bits_grows_with_distance() -> None:
    bounds = [bits_within(distance) for distance in (0.0, 0.45, 0.5, 0.6, 0.95, None)]

    assert bounds == [180, 180, 205, 262, 512, 512]


@pytest.mark.parametrize("passing_max", [0.0, 0.005, 1.0])
@pytest.mark.parametrize("is_of_grid", [False, True])
def test_many_queries_find_the_same_by_projections(
    monkeypatch: pytest.MonkeyPatch, passing_max: float, *, is_of_grid: bool
) -> None:
    monkeypatch.setattr("common.store.sqlite.scan.PASSING_MAX", passing_max)
    monkeypatch.setattr("common.store.sqlite.scan.PROJECTED_AT_ONCE", 300)
    rng = np.random.default_rng(5)
    rows = np.stack([of_grid(rng) for _ in range(600)]) if is_of_grid else random_rows(rng, 600)
    originals = rows[:25]
    altered = [copies(rng, turn(row)[number % 16], shares=[0, 0.2, 0.4]) for number, row in enumerate(originals)]
    rows = np.concatenate([rows, *altered])
    block = block_of(rows, ids=[1 + number // 2 for number in range(len(rows))])
    parts = [Live(block, np.flatnonzero(block.keys % 7 == 0))]
    asked = np.concatenate([turn(row) for row in [*originals, originals[0], np.zeros_like(originals[0])]])

    many = [nearest(parts, asked, limit=3, among=among, max_distance=0.45) for among in (None, block.keys[::6])]

    monkeypatch.setattr("common.store.sqlite.scan.PROJECTED_SAVES", len(asked))
    assert many == [nearest(parts, asked, limit=3, among=among, max_distance=0.45) for among in (None, block.keys[::6])]
    assert sum(len(images) for images in many[0]) > 40


def test_projections_miss_no_near_pair() -> None:
    rng = np.random.default_rng(6)
    rows = np.concatenate([random_rows(rng, 100), np.stack([of_grid(rng) for _ in range(100)])])
    queries = np.concatenate([turn(row) for row in rows[::20]])
    apart = np.stack([distances(query, rows) for query in queries])

    for max_distance in np.linspace(0.01, 0.99, 8):
        projected = ProjectedQueries(queries, max_distance)
        some, columns = projected.passing(rows)
        near, asked = projected.near(rows[some], columns)

        matrix = np.zeros(apart.shape, np.bool_)
        matrix[asked, some[near]] = True
        assert np.array_equal(matrix, apart <= max_distance)


def of_grid(rng: np.random.Generator) -> Rows:
    """Return the signature of a smooth image: differences of the levels of neighbouring boxes."""
    levels = np.cumsum(np.cumsum(rng.normal(size=(GRID, GRID)), axis=0), axis=1).ravel()
    differences = levels[SECOND] - levels[FIRST]
    median = np.median(np.abs(differences))
    return (np.sign(differences) * (1 + (np.abs(differences) > median))).astype(np.int8)
