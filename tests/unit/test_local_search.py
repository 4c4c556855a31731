"""Search and compare by local features, with a store in memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from common import local_search
from common.decoding.child import signed
from common.decoding.protocol import Output, SignedImage
from common.images.decode import DecodedImage
from common.images.local_features.features import LocalFeatures
from common.images.orientations import ORIENTATIONS
from common.local_search import (
    VERIFIED,
    ImageFeatures,
    add_local_comparison,
    add_local_matches,
    are_any_flat,
    has_few_features,
)
from common.search import Match, MatchedBy, SearchOptions, compare, find_by_signature
from common.sketch_matches import decide_by_sketches
from common.store.base import Record, WordCandidate
from support.scenes import cropped, page, passed_on, phone_screenshot, textured

EVERYTHING = ~Output(0)


def decoded(image: Image.Image | NDArray[np.uint8]) -> SignedImage:
    pixels = np.asarray(image)
    return signed(DecodedImage(pixels, pixels.shape[1], pixels.shape[0]), EVERYTHING)


def record(filepath: str, image: SignedImage, *, seq: int = 1, **changes: Any) -> Record:
    return Record(
        filepath=filepath,
        seq=seq,
        added=0,
        **{
            "signatures": image.signatures,
            "width": image.width,
            "height": image.height,
            "features": image.stored_features,
            **changes,
        },
    )


def thorough(query: Image.Image, store: Any, **options: Any) -> list[Match]:
    image = decoded(query)
    chosen = SearchOptions(**{"all_orientations": True, **options})
    is_flat = are_any_flat(image.signatures)
    similar = fast(query, store, **options)
    return add_local_matches(similar, ImageFeatures.of_image(image), store, chosen, is_query_flat=is_flat)


def fast(query: Image.Image, store: Any, **options: Any) -> list[Match]:
    image = decoded(query)
    chosen = SearchOptions(**{"all_orientations": True, **options})
    similar = find_by_signature(image.signatures, store, chosen)
    return decide_by_sketches(similar, image.small_copy, store, chosen).matches


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [textured(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def records(images: list[Image.Image]) -> list[Record]:
    return [record(f"{nth}", decoded(image), seq=nth + 1) for nth, image in enumerate(images)]


@pytest.fixture
def filled(memory_store: Any, records: list[Record]) -> Any:
    memory_store.put(records)
    return memory_store


def test_screenshot_of_a_cropped_photograph_is_found(filled: Any, images: list[Image.Image]) -> None:
    query = passed_on(images[3])

    [match] = thorough(query, filled)

    assert fast(query, filled) == []
    assert (match.filepath, match.matched_by, match.orientation) == ("3", MatchedBy.LOCAL_FEATURES, "original")
    assert match.score > 75
    assert match.verification is not None
    assert 25 < match.verification.query_overlap_percent < 45
    assert 55 < match.verification.target_overlap_percent < 90


def test_transform_maps_stored_pixels_to_the_query(filled: Any, images: list[Image.Image]) -> None:
    [match] = thorough(phone_screenshot(images[0]), filled)

    assert match.verification is not None
    transform = match.verification.transform
    scale = 540 / 640
    assert [transform.m11, transform.m12, transform.m21, transform.m22] == pytest.approx([scale, 0, 0, scale], abs=0.02)
    assert [transform.m13, transform.m23] == pytest.approx([0, 180], abs=8)


@pytest.mark.parametrize("number", range(8))
def test_turned_part_names_its_orientation(filled: Any, images: list[Image.Image], number: int) -> None:
    part = cropped(images[1])
    mirrored = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number >= 4 else part
    # The orientation turns the query back.
    query = part.rotate(90 * number, expand=True) if number < 4 else mirrored.rotate(-90 * number, expand=True)

    [match] = thorough(query, filled)
    upright = thorough(query, filled, all_orientations=False)

    expected = ORIENTATIONS[number] if number < 4 else ORIENTATIONS[4:8][number % 4]
    assert (match.filepath, match.orientation) == ("1", expected)
    assert [one.filepath for one in upright] == (["1"] if number == 0 else [])


def test_min_score_holds_for_local_features(filled: Any, images: list[Image.Image]) -> None:
    query = passed_on(images[2])
    [match] = thorough(query, filled)

    assert [one.filepath for one in thorough(query, filled, min_score=match.score)] == ["2"]
    assert thorough(query, filled, min_score=match.score + 0.1) == []


def test_better_score_of_both_ways_counts(filled: Any, images: list[Image.Image]) -> None:
    [match] = thorough(images[0], filled)

    assert (match.filepath, match.score, match.matched_by) == ("0", 100.0, MatchedBy.SIGNATURE)
    assert match.verification is not None
    assert match.verification.query_overlap_percent > 95


@pytest.mark.parametrize("find", [fast, thorough])
def test_sketches_decide_on_pages(memory_store: Any, find: Callable[..., list[Match]]) -> None:
    original, other = decoded(page(3)), decoded(page(7))
    memory_store.put([record("own", original), record("others", original, features=other.stored_features, seq=2)])
    copy = page(3).resize((250, 354), Image.Resampling.LANCZOS)

    similar = find_by_signature(decoded(copy).signatures, memory_store, SearchOptions(all_orientations=False))
    matches = find(copy, memory_store)

    assert ([match.filepath for match in similar.unconfirmed], similar.matches) == (["others", "own"], [])
    assert [match.filepath for match in matches] == ["own"]


def test_pages_without_sketches_match_if_nearly_equal(memory_store: Any) -> None:
    memory_store.put([record("page", decoded(page(3)), features=None)])

    copies = [page(3).resize(size, Image.Resampling.LANCZOS) for size in ((620, 877), (250, 354))]
    results = [fast(copy, memory_store) for copy in copies]

    assert [[match.filepath for match in matches] for matches in results] == [["page"], []]


def test_other_pages_do_not_match(memory_store: Any) -> None:
    memory_store.put([record(f"{nth}", decoded(page(nth)), seq=nth + 1) for nth in range(4)])

    assert [thorough(page(seed), memory_store) for seed in (4, 5)] == [[], []]


@pytest.mark.parametrize("is_query_flat", [False, True])
@pytest.mark.parametrize("is_target_flat", [False, True])
def test_two_flat_images_need_a_higher_local_score(
    memory_store: Any,
    images: list[Image.Image],
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_query_flat: bool,
    is_target_flat: bool,
) -> None:
    monkeypatch.setattr(local_search, "FLAT_SCORE", 101)
    target = decoded(images[3])
    flat = tuple(np.where(np.arange(272) < 150, one, 0).astype(np.int8) for one in target.signatures)
    memory_store.put([record("3", target, signatures=flat if is_target_flat else target.signatures)])
    features = ImageFeatures.of_image(decoded(passed_on(images[3])))

    results = add_local_matches(
        [], features, memory_store, SearchOptions(all_orientations=True), is_query_flat=is_query_flat
    )

    assert [one.filepath for one in results] == ([] if is_query_flat and is_target_flat else ["3"])


def test_sure_search_does_not_depend_on_min_score(filled: Any, images: list[Image.Image]) -> None:
    near = decoded(images[0].resize((320, 240))).signatures
    far = decoded(passed_on(images[0])).signatures

    similar = [
        find_by_signature(signatures, filled, SearchOptions(all_orientations=False, min_score=min_score))
        for signatures, min_score in ((near, None), (near, 100), (far, None), (far, 0))
    ]

    assert [one.is_sure for one in similar] == [True, True, False, False]
    assert similar[1].matches == []


def test_many_matching_parts_are_all_found(memory_store: Any, images: list[Image.Image]) -> None:
    image = decoded(images[0])
    count = 3 * VERIFIED
    memory_store.put([record(f"{nth:03}", image, seq=nth + 1) for nth in range(count)])
    query = passed_on(images[0])

    some, everything = (thorough(query, memory_store, limit=limit) for limit in (10, 200))

    assert len(some) == VERIFIED
    assert [match.filepath for match in everything] == [f"{nth:03}" for nth in range(count)]


def test_copy_is_found_behind_images_of_its_frame(memory_store: Any) -> None:
    own, other = decoded(page(3)), decoded(page(7))
    features, others = (LocalFeatures.decode(one.stored_features or b"") for one in (own, other))
    alike = replace(features, sketch=others.sketch).encode()
    memory_store.put([record(f"{nth:03}", own, features=alike, seq=nth + 1) for nth in range(2 * VERIFIED)])
    memory_store.put([record("own", own, seq=2 * VERIFIED + 1)])

    results = add_local_matches(
        [], ImageFeatures.of_image(own), memory_store, SearchOptions(all_orientations=False), is_query_flat=True
    )

    assert [one.filepath for one in results] == ["own"]


def test_page_of_one_word_is_found_as_a_whole(memory_store: Any) -> None:
    def lone(word: str) -> Image.Image:
        sheet = Image.new("RGB", (620, 800), "white")
        ImageDraw.Draw(sheet).text((300, 86), word, "black", font_size=14)
        return sheet

    memory_store.put([record(word, decoded(lone(word)), seq=nth) for nth, word in enumerate(("Dogs", "Name"), 1)])
    query = ImageFeatures.of_image(decoded(lone("Name")))

    results = add_local_matches([], query, memory_store, SearchOptions(all_orientations=False), is_query_flat=True)

    [match] = results
    assert (match.filepath, match.orientation) == ("Name", "original")
    assert match.verification is not None
    assert (match.verification.agreeing, match.verification.target_overlap_percent) == (0, 100)


def test_nearly_empty_page_is_a_match_at_any_rank(memory_store: Any) -> None:
    def sheet(word: str) -> SignedImage:
        blank = Image.new("RGB", (620, 800), "white")
        ImageDraw.Draw(blank).text((300, 86), word, "black", font_size=14)
        return decoded(blank)

    words = ["Dogs", "Cats", "Mice", "Rats", "Bees", "Ants", "Hens", "Name"]
    memory_store.put([record(word, sheet(word), seq=nth) for nth, word in enumerate(words, 1)])
    ranked = [WordCandidate(word, sheet(word).stored_features or b"") for word in words]
    memory_store.candidates_by_words = lambda *_args, **_options: ranked
    query = ImageFeatures.of_image(sheet("Name"))

    results = add_local_matches([], query, memory_store, SearchOptions(all_orientations=False), is_query_flat=True)

    assert [match.filepath for match in results] == ["Name"]


def test_records_of_other_versions_are_searched_by_signature(memory_store: Any, images: list[Image.Image]) -> None:
    image = decoded(images[0])
    newer = bytes([255]) + (image.stored_features or b"")[1:]
    memory_store.put([record("older", image, features=None), record("newer", image, seq=2, features=newer)])
    memory_store.candidates_by_words = lambda *_args, **_options: []

    assert [match.filepath for match in thorough(images[0], memory_store)] == ["newer", "older"]
    assert ImageFeatures.of_record(memory_store.records(["older"])["older"]) is None
    assert ImageFeatures.of_record(memory_store.records(["newer"])["newer"]) is None


def test_stored_features_serve_as_a_query(filled: Any, images: list[Image.Image]) -> None:
    screenshot = record("screenshot", decoded(phone_screenshot(cropped(images[3]))), seq=9)
    features = ImageFeatures.of_record(screenshot)
    options = SearchOptions(all_orientations=True)
    assert features is not None

    similar = find_by_signature(screenshot.signatures, filled, options).matches
    matches = add_local_matches(similar, features, filled, options, is_query_flat=False)

    assert [match.filepath for match in matches] == ["3"]


def test_few_features_are_reported(images: list[Image.Image]) -> None:
    plain = Image.new("RGB", (200, 200), "white")

    reports = [
        has_few_features(record("a", decoded(images[0]))),
        has_few_features(record("a", decoded(plain))),
        has_few_features(record("a", decoded(images[0]), features=None)),
    ]

    assert reports == [False, True, None]


def test_comparison_finds_a_part_in_either_image(images: list[Image.Image]) -> None:
    whole, part = decoded(images[0]), decoded(passed_on(images[0]))

    forth, back = (
        add_local_comparison(
            compare(one, other), ImageFeatures.of_image(one), ImageFeatures.of_image(other), is_flat=False
        )
        for one, other in ((part, whole), (whole, part))
    )

    assert forth.matched_by is back.matched_by is MatchedBy.LOCAL_FEATURES
    assert forth.score == back.score > 75
    assert forth.verification is not None
    assert back.verification is not None
    assert forth.verification.query_overlap_percent == back.verification.target_overlap_percent
    scale = forth.verification.transform.m11
    assert back.verification.transform.m11 == pytest.approx(1 / scale, abs=0.02)


def test_unrelated_images_compare_by_signature(images: list[Image.Image]) -> None:
    one, other = decoded(images[0]), decoded(images[1])
    by_signature = compare(one, other)

    comparison = add_local_comparison(
        by_signature, ImageFeatures.of_image(one), ImageFeatures.of_image(other), is_flat=False
    )

    assert comparison == by_signature
