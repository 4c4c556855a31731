"""The contract of all stores on the lookup of images by visual words."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from common.images.local_features.features import VERSION
from common.images.local_features.words import WORDS
from common.store.base import DEFAULT_SELECTION, WORDS_MAX, Selection, Store
from support.records import FEATURELESS, deletion, features_of, record

Connect = Callable[[], Store]

# The kind of vectors makes no difference to words. The fake of other tests is here too.
STORES = [
    "sqlite",
    "memory",
    pytest.param("elastic", marks=pytest.mark.elasticsearch),
    pytest.param("opensearch", marks=pytest.mark.opensearch),
]
pytestmark = pytest.mark.parametrize("connect", STORES, indirect=True)


def by_words(store: Store, *words: int, limit: int = 10, selection: Selection = DEFAULT_SELECTION) -> list[str]:
    store.refresh()
    candidates = store.candidates_by_words(np.array(words, np.uint32), limit=limit, selection=selection)
    return [candidate.filepath for candidate in candidates]


def test_candidates_have_their_stored_features(store: Store) -> None:
    store.put([record("cat.jpg", 1, features=features_of(3, 5, 5)), record("dog.jpg", 2, features=features_of(7))])
    store.refresh()

    (candidate,) = store.candidates_by_words(np.array([5], np.uint32), limit=10)

    assert (candidate.filepath, candidate.features) == ("cat.jpg", features_of(3, 5, 5))


def test_rare_words_count_more_than_common_ones(store: Store) -> None:
    common = [record(f"{seq}.jpg", seq, features=features_of(1, 2, 3, 1_000 + seq)) for seq in range(1, 30)]
    store.put(
        [*common, record("rare.jpg", 30, features=features_of(10)), record("no.jpg", 31, features=features_of(11))]
    )

    matches = by_words(store, 1, 2, 3, 10, limit=40)

    assert matches[0] == "rare.jpg"
    assert len(matches) == 30
    assert by_words(store, 1, 2, 3, 10, 1_004)[:2] == ["4.jpg", "rare.jpg"]


def test_order_is_that_of_summed_idf(store: Store) -> None:
    chance = np.random.default_rng(7)
    # Low words are in many images, high ones in few.
    words = {f"{row}.jpg": set((60 * chance.random(12) ** 2).astype(int).tolist()) for row in range(50)}
    store.put([record(path, seq, features=features_of(*own)) for seq, (path, own) in enumerate(words.items(), 1)])
    query = set(range(0, 60, 3))

    matches = by_words(store, *query, limit=50)

    having = {word: sum(word in own for own in words.values()) for word in query}
    idf = {word: math.log1p((50 - count + 0.5) / (count + 0.5)) for word, count in having.items()}
    sums = {path: sum(idf[word] for word in own & query) for path, own in words.items() if own & query}
    assert [round(sums[path], 4) for path in matches] == sorted(
        (round(each, 4) for each in sums.values()), reverse=True
    )


def test_repeated_words_count_once(store: Store) -> None:
    store.put([record("one.jpg", 1, features=features_of(1, 2)), record("many.jpg", 2, features=features_of(*[1] * 9))])

    assert by_words(store, 1, 1, 1, 1, 2) == ["one.jpg", "many.jpg"]


def test_images_that_share_equally_are_all_found(store: Store) -> None:
    store.put([record(f"{seq}.jpg", seq, features=features_of(4, 5)) for seq in range(1, 8)])

    assert sorted(by_words(store, 4, 5)) == [f"{seq}.jpg" for seq in range(1, 8)]
    assert len(set(by_words(store, 4, 5, limit=3))) == 3


def test_images_without_features_are_never_candidates(store: Store) -> None:
    store.put([record("cat.jpg", 1), record("dog.jpg", 2, features=features_of())])

    assert by_words(store, *range(1_000)) == []
    assert by_words(store) == []


def test_features_of_another_version_are_kept_but_not_found(store: Store) -> None:
    older = bytes([VERSION - 1]) + features_of(1)[1:]
    store.put([record("cat.jpg", 1, features=older), record("dog.jpg", 2, features=features_of(1))])

    assert by_words(store, 1) == ["dog.jpg"]
    assert store.records(["cat.jpg"])["cat.jpg"].features == older


def test_a_featureless_image_may_have_words(store: Store) -> None:
    store.put([record("cat.jpg", 1, FEATURELESS, features=features_of(8, 9))])

    assert by_words(store, 9) == ["cat.jpg"]


def test_an_overwritten_image_has_only_its_last_words(store: Store) -> None:
    store.put([record(path, seq, features=features_of(1)) for seq, path in enumerate(["cat.jpg", "dog.jpg"], 1)])
    by_words(store, 1)

    store.put([record("cat.jpg", 3, features=features_of(2)), record("dog.jpg", 4)])

    assert by_words(store, 1) == []
    assert by_words(store, 2) == ["cat.jpg"]


def test_deleted_images_are_not_found_until_added_again(store: Store) -> None:
    store.put([record("cat.jpg", 1, features=features_of(1)), record("dog.jpg", 2, features=features_of(1))])
    by_words(store, 1)

    store.put([deletion("cat.jpg", 3)])
    deleted = by_words(store, 1)
    store.purge(before=2**50, limit=10)
    purged = by_words(store, 1)
    store.put([record("cat.jpg", 4, features=features_of(1))])

    assert deleted == purged == ["dog.jpg"]
    assert sorted(by_words(store, 1)) == ["cat.jpg", "dog.jpg"]


def test_an_older_request_changes_no_words(store: Store) -> None:
    store.put([record("cat.jpg", 5, features=features_of(5)), deletion("dog.jpg", 6)])

    store.put([record("cat.jpg", 3, features=features_of(3)), record("dog.jpg", 4, features=features_of(3))])

    assert by_words(store, 3) == []
    assert by_words(store, 5) == ["cat.jpg"]


def test_a_filter_finds_images_behind_better_excluded_ones(store: Store) -> None:
    excluded = [record(f"{seq}.jpg", seq, features=features_of(1, 2, 3)) for seq in range(1, 60)]
    kept = record("kept.jpg", 60, features=features_of(3), metadata={"kind": "cat"})
    store.put([*excluded, kept])

    assert by_words(store, 1, 2, 3, limit=1, selection=Selection(where={"kind": "cat"})) == ["kept.jpg"]
    assert by_words(store, 1, 2, 3, limit=1, selection=Selection(where={"kind": "dog"})) == []


def test_only_the_collection_of_a_lookup_is_found(store: Store) -> None:
    others = [record(f"{seq}.jpg", seq, features=features_of(1, 2, 3), collection="big") for seq in range(1, 60)]
    same_path = record("1.jpg", 60, features=features_of(3), collection="small", metadata={"kind": "cat"})
    in_folder = record("sub/2.jpg", 61, features=features_of(3), collection="small")
    store.put([*others, same_path, in_folder, record("3.jpg", 62, features=features_of(9), collection="small")])

    def matches(**options: Any) -> list[str]:
        return sorted(by_words(store, 1, 2, 3, limit=3, selection=Selection(**options)))

    assert matches(collection="small") == ["1.jpg", "sub/2.jpg"]
    assert len(by_words(store, 1, 2, 3, limit=100, selection=Selection(collection="big"))) == 59
    assert matches(collection="small", where={"kind": "cat"}) == ["1.jpg"]
    assert matches(collection="small", filepath_prefix="sub/") == ["sub/2.jpg"]
    assert matches() == matches(collection="absent") == []


def test_words_of_another_process_are_found(store: Store, connect: Connect) -> None:
    other = connect()
    matches = []
    for seq in range(1, 6):
        store.put([record("moving.jpg", seq, features=features_of(seq))])
        matches.append(by_words(other, seq, seq - 1))

    assert matches == [["moving.jpg"]] * 5
    assert by_words(other, 4) == []


def test_the_largest_lookup_is_accepted(store: Store) -> None:
    store.put([record("cat.jpg", 1, features=features_of(0, WORDS - 1))])

    words = np.linspace(0, WORDS - 1, WORDS_MAX).astype(int).tolist()

    assert len(set(words)) == WORDS_MAX
    assert by_words(store, *words) == ["cat.jpg"]
