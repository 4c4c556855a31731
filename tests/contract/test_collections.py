"""The contract of all stores about collections: images of one are invisible in the others, and the catalogue."""

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from common.errors import StoreUnavailable
from common.images.signature import Signature
from common.store.base import DEFAULT_COLLECTION, Collection, Record, Selection, Store, Tombstone, Verdict
from common.store.deletion import Step, delete_before
from contract.conftest import STORES, opening
from support.records import deletion, features_of, record, signature

STORED, SUPERSEDED = Verdict.STORED, Verdict.SUPERSEDED
NAMES = ["shop", "shop-2", "0", "a_b-c", "x" * 63]
SHOP = Selection(collection="shop")

Connect = Callable[[], Store]


@pytest.fixture(params=["memory", *STORES])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Return a function that opens the store of this test again; the store in memory follows this contract too."""
    yield from opening(request.getfixturevalue(f"build_{request.param}"))


def verdicts(store: Store, *items: Record | Tombstone) -> list[Verdict]:
    return [written.verdict for written in store.put(items)]


def listed(store: Store, collection: str = DEFAULT_COLLECTION, *, prefix: str = "") -> list[str]:
    store.refresh()
    selection = Selection(collection=collection, filepath_prefix=prefix)
    return store.filepaths_after(0, limit=100, selection=selection).filepaths


def matches(store: Store, query: Signature, selection: Selection) -> set[str]:
    store.refresh()
    (candidates,) = store.candidates(query[None], limit=50, selection=selection)
    return {candidate.filepath for candidate in candidates}


def counted(store: Store) -> dict[str, int]:
    store.refresh()
    counts = {collection.name: collection.images for collection in store.collections()}
    assert counts == {name: store.count(selection=Selection(collection=name)) for name in counts}
    assert all(store.collection(name) == Collection(name=name, images=count) for name, count in counts.items())
    return counts


# Images


def test_filepath_is_unique_within_its_collection(store: Store) -> None:
    names = [DEFAULT_COLLECTION, *NAMES]

    written = verdicts(
        store, *[record("cat.jpg", seq, metadata={"in": name}, collection=name) for seq, name in enumerate(names, 1)]
    )

    assert written == [STORED] * len(names)
    for seq, name in enumerate(names, 1):
        existing = store.records(["cat.jpg"], collection=name)["cat.jpg"]
        assert (existing.collection, existing.seq, existing.metadata) == (name, seq, {"in": name})
        assert store.metadata(["cat.jpg"], collection=name) == {"cat.jpg": {"in": name}}
        assert listed(store, name) == ["cat.jpg"]


def test_requests_are_ordered_within_a_collection(store: Store) -> None:
    store.put([record("cat.jpg", 9), deletion("dog.jpg", 9)])

    written = verdicts(
        store,
        record("cat.jpg", 2, collection="shop"),
        record("dog.jpg", 3, collection="shop"),
        record("cat.jpg", 1, collection="shop"),
    )

    assert written == [STORED, STORED, SUPERSEDED]
    assert listed(store, "shop") == ["cat.jpg", "dog.jpg"]
    assert listed(store) == ["cat.jpg"]


def test_deletion_leaves_other_collections_unchanged(store: Store) -> None:
    for seq, name in enumerate([DEFAULT_COLLECTION, *NAMES], 1):
        store.put([record("cat.jpg", seq, collection=name)])

    store.put([deletion("cat.jpg", 20, collection="shop")])
    store.put([deletion("cat.jpg", 21)])

    assert {name: listed(store, name) for name in ("shop", DEFAULT_COLLECTION)} == {
        "shop": [],
        DEFAULT_COLLECTION: [],
    }
    assert all(listed(store, name) == ["cat.jpg"] for name in NAMES if name != "shop")


def test_search_finds_only_images_of_its_collection(store: Store) -> None:
    near = signature(1)
    store.put([record(f"near-{seq}.jpg", seq, near, collection="other") for seq in range(1, 80)])
    store.put([record(f"near-{seq}.jpg", seq, near) for seq in range(100, 180)])
    store.put([record(f"far-{seq}.jpg", seq, collection="shop") for seq in range(200, 220)])
    store.refresh()

    rows = store.candidates(np.stack([near, signature(205)]), limit=15, selection=SHOP)

    assert [len(row) >= 15 for row in rows] == [True, True]
    assert {candidate.filepath.partition("-")[0] for row in rows for candidate in row} == {"far"}
    assert len(matches(store, near, Selection())) == 50


def test_word_lookup_returns_only_images_of_its_collection(store: Store) -> None:
    store.put([record(f"{seq}.jpg", seq, features=features_of(7, 8, 9), collection="other") for seq in range(1, 40)])
    store.put([record("1.jpg", 50, features=features_of(7, 8, 9)), record("2.jpg", 51, features=features_of(20))])
    store.put([record(f"{seq}.jpg", seq, features=features_of(7, seq), collection="shop") for seq in range(60, 65)])
    store.refresh()
    words = np.array([7, 8, 9, 62], np.uint32)

    results = {
        name: store.candidates_by_words(words, limit=5, selection=Selection(collection=name))
        for name in ("shop", DEFAULT_COLLECTION, "shop-2")
    }

    assert sorted(candidate.filepath for candidate in results["shop"]) == [f"{seq}.jpg" for seq in range(60, 65)]
    assert [candidate.filepath for candidate in results[DEFAULT_COLLECTION]] == ["1.jpg"]
    assert results["shop-2"] == []


def test_overwritten_image_is_found_in_its_collection(store: Store) -> None:
    store.put([record("cat.jpg", 1, collection="shop"), record("cat.jpg", 2), record("dog.jpg", 3, collection="shop")])
    matches(store, signature(1), SHOP)

    store.put([record("cat.jpg", 4, collection="shop"), deletion("dog.jpg", 5, collection="shop")])

    store.refresh()
    (candidate,) = store.candidates(signature(4)[None], limit=9, selection=SHOP)[0]
    assert np.array_equal(candidate.signatures, [signature(4)])
    assert matches(store, signature(2), Selection()) == {"cat.jpg"}


def test_unknown_collection_has_no_images(store: Store) -> None:
    store.put([record("cat.jpg", 1), record("cat.jpg", 2, collection="shop-2")])

    assert store.records(["cat.jpg"], collection="shop") == {}
    assert store.metadata(["cat.jpg"], collection="shop") == {}
    assert matches(store, signature(1), SHOP) == set()
    assert listed(store, "shop") == []
    assert store.filepaths(offset=0, limit=9, selection=SHOP).filepaths == []
    assert store.count(selection=SHOP) == 0
    assert store.collection("shop") is None


def test_filter_applies_within_a_collection(store: Store) -> None:
    store.put([record("cat.jpg", 1, metadata={"colour": "red"})])
    store.put([record(f"{seq}.jpg", seq, metadata={"colour": "red"}, collection="shop") for seq in (2, 3)])
    store.put([record("4.jpg", 4, metadata={"colour": "blue"}, collection="shop")])
    red = Selection(collection="shop", where={"colour": "red"})

    assert matches(store, signature(1), red) == {"2.jpg", "3.jpg"}
    assert store.filepaths(offset=1, limit=9, selection=red).filepaths == ["3.jpg"]
    assert store.filepaths_after(2, limit=9, selection=red).filepaths == ["3.jpg"]
    assert store.count(selection=red) == 2


PREFIXED = [
    "a/1",
    "a/2",
    "a",
    "a0",
    "b/1",
    "%",
    "_x",
    "\u00e9/1",
    "e\u0301/1",
    "\U0010ffff",
    "\U0010ffff!",
    "\ud7ff",
    "*.jpg",
    "?",
    "\\*",
    "\\\\",
    "[a]",
    "x" * 2047 + "y",
    "z",
]
PREFIXES = ["a", "a/", "a/1", "A", "%", "_", "\u00e9", "e", "\U0010ffff", "\ud7ff", "X", "*", "?", "\\", "\\*", "["]
PREFIXES += ["%%", "a%", "_/", "??", "x" * 2047, "x" * 2048]


def test_prefix_selects_the_filepaths_that_begin_with_it(store: Store) -> None:
    store.put([record(path, seq) for seq, path in enumerate(PREFIXED, 1)])
    store.put([record(path, seq, collection="shop") for seq, path in enumerate(PREFIXED, 100)])

    results = {prefix: listed(store, "shop", prefix=prefix) for prefix in PREFIXES}

    assert results == {prefix: [path for path in PREFIXED if path.startswith(prefix)] for prefix in PREFIXES}
    for prefix, expected in results.items():
        selection = Selection(collection="shop", filepath_prefix=prefix)
        assert store.filepaths(offset=1, limit=9, selection=selection).filepaths == expected[1:]
        assert store.count(selection=selection) == len(expected)
        assert matches(store, signature(1), selection) == set(expected)


def test_random_writes_leak_into_no_other_collection(store: Store) -> None:
    chance = random.Random(5)
    names, paths = [DEFAULT_COLLECTION, *NAMES], [f"{number}.jpg" for number in range(6)]
    model: dict[tuple[str, str], int] = {}
    for seq in range(1, 200):
        name, path = chance.choice(names), chance.choice(paths)
        if chance.random() < 0.3:
            store.put([deletion(path, seq, collection=name)])
            model.pop((name, path), None)
        else:
            store.put([record(path, seq, collection=name)])
            model[name, path] = seq

    store.refresh()
    for name in names:
        expected = {path: seq for (collection, path), seq in model.items() if collection == name}
        selection = Selection(collection=name)
        existing = store.records(paths, collection=name)
        assert {path: stored.seq for path, stored in existing.items()} == expected
        assert {stored.collection for stored in existing.values()} <= {name}
        assert listed(store, name) == sorted(expected, key=lambda path: expected[path])
        assert matches(store, signature(1), selection) == set(expected)
        assert store.count(selection=selection) == len(expected)


# Catalogue


def test_default_collection_always_exists(store: Store) -> None:
    assert counted(store) == {DEFAULT_COLLECTION: 0}
    assert store.delete_collection(DEFAULT_COLLECTION)
    assert counted(store) == {DEFAULT_COLLECTION: 0}


def test_counts_follow_every_write(store: Store) -> None:
    store.put([record(f"{seq}.jpg", seq, collection="shop") for seq in range(1, 6)] + [record("cat.jpg", 6)])
    first = counted(store)

    store.put([record("1.jpg", 10, collection="shop"), record("2.jpg", 1, collection="shop")])
    store.put([deletion("3.jpg", 11, collection="shop"), deletion("never.jpg", 12, collection="shop")])
    store.put([deletion("3.jpg", 11, collection="shop"), deletion("4.jpg", 13, collection="shop")])
    store.put([record("4.jpg", 14, collection="shop")])

    assert first == {DEFAULT_COLLECTION: 1, "shop": 5}
    assert counted(store) == {DEFAULT_COLLECTION: 1, "shop": 4}


def test_collection_exists_while_it_has_images_or_an_entry(store: Store) -> None:
    store.put([record("cat.jpg", 1, collection="by-image")])
    store.create_collection("by-entry")
    before = counted(store)

    store.put([deletion("cat.jpg", 2, collection="by-image")])

    assert before == {"by-entry": 0, "by-image": 1, DEFAULT_COLLECTION: 0}
    assert counted(store) == {"by-entry": 0, DEFAULT_COLLECTION: 0}
    assert verdicts(store, record("cat.jpg", 1, collection="by-image")) == [SUPERSEDED]


def test_quota_is_kept_until_it_is_changed(store: Store, connect: Connect) -> None:
    store.put_collection("shop", max_images=5)
    store.put_collection(DEFAULT_COLLECTION, max_images=2**40)
    store.create_collection("shop")
    store.put([record("cat.jpg", 1, collection="shop")])
    store.refresh()
    first, listing = connect().collection("shop"), store.collections()

    store.put_collection("shop", max_images=None)

    assert first == Collection(name="shop", images=1, max_images=5)
    assert listing == [Collection(name=DEFAULT_COLLECTION, images=0, max_images=2**40), first]
    assert store.collection("shop") == Collection(name="shop", images=1)


def test_entry_is_read_right_after_it_was_written(store: Store) -> None:
    for number in range(3):
        store.put_collection("shop", max_images=number)

        assert store.collection("shop") == Collection(name="shop", images=0, max_images=number)


def test_collection_with_images_is_not_deleted(store: Store) -> None:
    store.put_collection("shop", max_images=5)
    store.put([record("cat.jpg", 1, collection="shop")])

    assert not store.delete_collection("shop")
    assert store.collection("shop") == Collection(name="shop", images=1, max_images=5)


def test_deleted_collection_is_created_again_without_its_quota(store: Store) -> None:
    store.put_collection("shop", max_images=5)
    store.put([record("cat.jpg", 1, collection="shop"), deletion("cat.jpg", 2, collection="shop")])

    assert store.delete_collection("shop")
    store.refresh()
    gone = store.collection("shop"), store.collections()
    store.create_collection("shop")
    store.refresh()

    assert gone == (None, [Collection(name=DEFAULT_COLLECTION, images=0)])
    assert store.collections() == [Collection(name=DEFAULT_COLLECTION, images=0), Collection(name="shop", images=0)]
    assert verdicts(store, record("cat.jpg", 1, collection="shop")) == [SUPERSEDED]


def test_purged_collection_may_be_filled_again(store: Store) -> None:
    store.put([record("cat.jpg", 1, collection="shop"), deletion("cat.jpg", 2, collection="shop")])
    store.create_collection("kept")
    store.delete_collection("shop")
    store.refresh()

    store.purge(before=deletion("", 3).added, limit=10)
    store.refresh()
    store.put([record("cat.jpg", 4, collection="shop")])

    assert counted(store) == {DEFAULT_COLLECTION: 0, "kept": 0, "shop": 1}
    assert matches(store, signature(4), SHOP) == {"cat.jpg"}


# Deletion of all images


def test_images_of_a_collection_are_deleted_in_steps(store: Store) -> None:
    store.put([record(f"{seq}.jpg", seq, collection="shop") for seq in range(1, 8)])
    store.put([record("1.jpg", 8), record("cat.jpg", 9, collection="shop-2")])
    store.put([record("late.jpg", 21, collection="shop"), record("2.jpg", 22, collection="shop")])

    steps = [delete_before(store, SHOP, seq=20, added=0, limit=3) for _ in range(3)]

    assert steps == [Step(3, is_last=False), Step(3, is_last=False), Step(0, is_last=True)]
    assert listed(store, "shop") == ["late.jpg", "2.jpg"]
    assert (listed(store), listed(store, "shop-2")) == (["1.jpg"], ["cat.jpg"])
    assert verdicts(store, record("3.jpg", 19, collection="shop")) == [SUPERSEDED]


def test_deletion_of_a_selection_keeps_other_images(store: Store) -> None:
    items = [("a/1", {"colour": "red"}), ("a/2", None), ("b/1", {"colour": "red"})]
    store.put([record(path, seq, metadata=metadata) for seq, (path, metadata) in enumerate(items, 1)])

    steps = [
        delete_before(store, Selection(filepath_prefix="a/", where={"colour": "red"}), seq=20, added=0, limit=9),
        delete_before(store, Selection(filepath_prefix="a/"), seq=20, added=0, limit=9),
        delete_before(store, SHOP, seq=20, added=0, limit=9),
    ]

    assert steps == [Step(1, is_last=True), Step(1, is_last=True), Step(0, is_last=True)]
    assert listed(store) == ["b/1"]


# Errors

CALLS: Sequence[Callable[[Store], object]] = [
    lambda store: store.collections(),
    lambda store: store.collection("shop"),
    lambda store: store.create_collection("shop"),
    lambda store: store.put_collection("shop", max_images=1),
    lambda store: store.delete_collection("shop"),
    lambda store: store.metadata(["cat.jpg"], collection="shop"),
]


@pytest.mark.parametrize("call", CALLS, ids=["all", "one", "create", "put", "delete", "metadata"])
def test_absent_store_is_unavailable(absent: Store, call: Callable[[Store], object]) -> None:
    with pytest.raises(StoreUnavailable):
        call(absent)
