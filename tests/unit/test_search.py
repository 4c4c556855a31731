"""Search and compare with a store in memory."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.decoding.child import signed
from common.decoding.protocol import SignedImage
from common.images.decode import DecodedImage
from common.images.flatness import BARE_REACH, are_featureless
from common.images.orientations import ORIENTATIONS, turn
from common.images.signature import LENGTH, Signature, distance, sign
from common.search import CUTOFF, TURNED_CUTOFF, Comparison, SearchOptions, compare, find_by_signature, search
from common.store.base import Record, Selection, Tombstone
from support.scenes import ball

FEATURELESS = np.zeros(LENGTH, dtype=np.int8)


def record(filepath: str, *signatures: Signature, **metadata: str) -> Record:
    return Record(filepath=filepath, seq=1, signatures=signatures, metadata=metadata, added=0, width=9, height=9)


def image_of(pixels: NDArray[np.uint8]) -> SignedImage:
    return signed(DecodedImage(pixels, pixels.shape[1], pixels.shape[0]))


def full(seed: int) -> Signature:
    """Return a signature without zeros: one that is not of flat content."""
    return np.random.default_rng(seed).choice(np.array([-2, -1, 1, 2], dtype=np.int8), LENGTH)


@pytest.fixture
def query() -> Signature:
    return full(7)


def away(signature: Signature, least: float) -> Signature:
    """Return a signature at a distance of `least` or slightly more, by inverting the first values."""
    for count in range(LENGTH):
        changed = np.concatenate([-signature[:count], signature[count:]])
        if distance(signature, changed) >= least:
            return changed
    raise AssertionError("the distance of opposites is 1")


def just_nearer(signature: Signature, limit: float) -> Signature:
    """Return the farthest of these signatures that is nearer than `limit`."""
    near = [np.concatenate([-signature[:count], signature[count:]]) for count in range(LENGTH)]
    return [changed for changed in near if distance(signature, changed) < limit][-1]


def test_a_stored_image_is_found_with_its_metadata(memory_store: Any, query: Signature) -> None:
    memory_store.put([record("a", query, colour="red")])

    (match,) = search([query], memory_store, all_orientations=False)

    assert (match.filepath, match.score, match.orientation) == ("a", 100.0, "original")
    assert match.metadata == {"colour": "red"}


def test_matches_are_sorted_by_score_and_filepath(memory_store: Any, query: Signature) -> None:
    memory_store.put([record("far", away(query, 0.2)), record("b", query), record("a", query)])

    matches = search([query], memory_store, all_orientations=False)

    assert [match.filepath for match in matches] == ["a", "b", "far"]


def test_distances_from_the_cutoff_do_not_match(memory_store: Any, query: Signature) -> None:
    memory_store.put([record("near", just_nearer(query, CUTOFF)), record("far", away(query, CUTOFF))])

    matches = search([query], memory_store, all_orientations=False)

    assert [match.filepath for match in matches] == ["near"]


@pytest.mark.parametrize(("share", "unconfirmed"), [(0.6, ["far"]), (0.8, [])], ids=["bare", "filled"])
def test_far_images_need_confirmation_of_bare_queries(
    memory_store: Any, query: Signature, share: float, unconfirmed: list[str]
) -> None:
    partly = np.where(np.arange(LENGTH) < share * LENGTH, query, 0).astype(np.int8)
    memory_store.put([record("far", away(partly, CUTOFF)), record("beyond", away(partly, BARE_REACH))])

    nearest = find_by_signature([partly], memory_store, SearchOptions(all_orientations=False))

    assert nearest.matches == []
    assert [match.filepath for match in nearest.unconfirmed] == unconfirmed


def test_hardly_any_different_balls_match(memory_store: Any) -> None:
    signed = [(ball(seed), image_of(np.asarray(ball(seed))).signatures) for seed in range(20)]
    balls = {str(nth): image for nth, (image, signatures) in enumerate(signed) if not are_featureless(signatures)}
    memory_store.put([record(filepath, *image_of(np.asarray(image)).signatures) for filepath, image in balls.items()])

    copies = [image_of(np.asarray(image.resize((200, 200)))) for image in balls.values()]
    results = [search(copy.signatures, memory_store, all_orientations=False) for copy in copies]

    assert [matches[0].filepath for matches in results] == list(balls)
    # Half of the pairs are below the cutoff of photographs.
    assert sum(map(len, results)) <= 1.5 * len(balls)


def test_turned_copies_have_a_lower_cutoff(memory_store: Any, query: Signature) -> None:
    between = just_nearer(query, CUTOFF)
    assert distance(query, between) >= TURNED_CUTOFF
    memory_store.put([record("upright", between), record("mirrored", turn(between)[ORIENTATIONS.index("mirrored")])])

    matches = search([query], memory_store, all_orientations=True)

    assert [match.filepath for match in matches] == ["upright"]


@pytest.mark.parametrize("number", range(16))
def test_a_turned_copy_is_found_and_its_orientation_named(memory_store: Any, query: Signature, number: int) -> None:
    memory_store.put([record("a", turn(query)[number])])

    (match,) = search([query], memory_store, all_orientations=True)

    assert (match.score, match.orientation) == (100.0, ORIENTATIONS[number])


def test_without_all_orientations_no_turned_copy_is_found(memory_store: Any, query: Signature) -> None:
    memory_store.put([record("a", turn(query)[3])])

    assert search([query], memory_store, all_orientations=False) == []


def test_an_image_found_by_several_orientations_matches_once(memory_store: Any) -> None:
    stripes = 120 + 100 * np.sin(np.arange(250) ** 1.5 / 40)
    symmetric = sign(np.tile(stripes.astype(np.uint8)[:, np.newaxis, np.newaxis], (1, 250, 3)))
    memory_store.put([record("a", symmetric)])

    (match,) = search([symmetric], memory_store, all_orientations=True)

    assert (match.score, match.orientation) == (100.0, "original")


def test_of_several_signatures_the_nearest_counts(memory_store: Any, query: Signature) -> None:
    memory_store.put([record("far", -query), record("both", -query, query), record("near", away(query, 0.1))])

    matches = search([query], memory_store, all_orientations=False)

    assert [match.filepath for match in matches] == ["both", "near"]
    assert matches[0].score == 100.0


def test_min_score_is_inclusive_for_every_orientation(memory_store: Any, query: Signature) -> None:
    edge = away(query, 0.6)
    memory_store.put([record("upright", edge), record("turned", turn(edge)[1]), record("far", away(query, 0.61))])
    lowest = (1.0 - distance(query, edge)) * 100.0

    matches = search([query], memory_store, all_orientations=True, min_score=lowest)

    assert [(match.filepath, match.orientation) for match in matches] == [
        ("turned", "rotated_90"),
        ("upright", "original"),
    ]


def test_limit_and_offset_take_a_part_of_the_ranking(memory_store: Any, query: Signature) -> None:
    memory_store.put([record(f"{number:03}", query) for number in range(120)])

    part = search([query], memory_store, all_orientations=False, limit=10, offset=105)

    assert [match.filepath for match in part] == [f"{number:03}" for number in range(105, 115)]


@pytest.mark.parametrize(
    ("all_orientations", "limit", "offset", "requested"), [(False, 10, 0, 50), (True, 10, 0, 30), (True, 100, 20, 120)]
)
def test_enough_candidates_are_requested(
    memory_store: Any,
    query: Signature,
    monkeypatch: pytest.MonkeyPatch,
    *,
    all_orientations: bool,
    limit: int,
    offset: int,
    requested: int,
) -> None:
    calls = []

    def candidates(queries: NDArray[np.int8], *, limit: int, selection: Selection, max_distance: float) -> list[Any]:
        calls.append((len(queries), limit, selection, max_distance))
        return []

    monkeypatch.setattr(memory_store, "candidates", candidates)
    selection = Selection(collection="shop", where={"a": "b"})

    search([query], memory_store, all_orientations=all_orientations, limit=limit, offset=offset, selection=selection)

    assert calls == [(16 if all_orientations else 1, requested, selection, CUTOFF)]


def test_an_image_deleted_during_a_search_is_omitted(
    memory_store: Any, query: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_store.put([record("kept", query), record("gone", query)])
    stale = memory_store.candidates(query[np.newaxis], limit=50)
    memory_store.put([Tombstone(filepath="gone", seq=2, added=0)])
    monkeypatch.setattr(memory_store, "candidates", lambda _queries, *, limit, **_options: stale[:limit])

    matches = search([query], memory_store, all_orientations=False)

    assert [match.filepath for match in matches] == ["kept"]


def test_a_featureless_query_finds_nothing(memory_store: Any, query: Signature) -> None:
    memory_store.put([record("a", query), record("plain", FEATURELESS)])

    assert search([FEATURELESS], memory_store, all_orientations=True, min_score=0.0) == []


def test_an_empty_store_finds_nothing(memory_store: Any, query: Signature) -> None:
    assert search([query], memory_store, all_orientations=True) == []


def test_a_photograph_compared_with_itself_scores_100(photo: NDArray[np.uint8]) -> None:
    assert compare(image_of(photo), image_of(photo.copy())) == Comparison(score=100.0, is_featureless=False)


def test_two_photographs_compare_by_the_distance_of_their_signatures(
    photo: NDArray[np.uint8], other_photo: NDArray[np.uint8]
) -> None:
    expected = (1 - distance(sign(photo), sign(other_photo))) * 100

    assert math.isclose(compare(image_of(photo), image_of(other_photo)).score, expected)
    assert expected < 55


@pytest.mark.parametrize(("grey", "size", "expected"), [(9, 30, 100.0), (10, 30, 0.0), (9, 31, 0.0)])
def test_plain_images_are_compared_by_their_pixels(grey: int, size: int, expected: float) -> None:
    plain = image_of(np.full((30, 30, 3), 9, dtype=np.uint8))
    other = image_of(np.full((30, size, 3), grey, dtype=np.uint8))

    assert compare(plain, other) == Comparison(score=expected, is_featureless=True)


def test_a_plain_image_is_unlike_a_photograph(photo: NDArray[np.uint8]) -> None:
    comparison = compare(image_of(np.zeros_like(photo)), image_of(photo))

    assert comparison == Comparison(score=0.0, is_featureless=True)


def test_nearest_pair_of_signatures_counts(memory_store: Any, query: Signature) -> None:
    other = full(8)
    memory_store.put([record("second", FEATURELESS, other), record("first", query), record("neither", -other)])

    matches = search([query, other], memory_store, all_orientations=False)

    assert [(match.filepath, match.score) for match in matches] == [("first", 100.0), ("second", 100.0)]


def test_noise_in_a_letterbox_is_ignored(photo: NDArray[np.uint8]) -> None:
    boxed = np.pad(photo, ((90, 90), (0, 0), (0, 0)))
    noise = np.random.default_rng(1).integers(0, 2, boxed.shape[:2], dtype=np.uint8)[:, :, np.newaxis]
    noisy = np.where(boxed < 255, boxed + noise, boxed)

    assert compare(image_of(noisy), image_of(boxed)).score > 90
    assert compare(image_of(noisy), image_of(photo)).score > 90
