"""The contract of all stores, described in common/store/base.py."""

import itertools
import json
import random
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import StoreUnavailable
from common.images.orientations import turn
from common.images.signature import LENGTH, Signature
from common.record_rules import METADATA_DIGITS
from common.store.base import Health, Page, Record, Selection, Store, Tombstone, Verdict
from support.records import FEATURELESS, deletion, features_of, record, signature

STORED, SUPERSEDED = Verdict.STORED, Verdict.SUPERSEDED
# Not the UTF-8 of any text.
SHA256 = bytes(range(0, 256, 8))
URL = "https://images.example.org/cat.jpg?v=%C3%A4&x='%22"
AWKWARD_PATHS = [
    "cat.jpg",
    "CAT.jpg",
    "cat.jpg ",
    "dir/cat.jpg",
    "http://a.com/x/cat.jpg?v=1",
    "http://a.com/x/cat.jpg?v=2",
    "caf\u00e9.jpg",
    "cafe\u0301.jpg",
    "\U0001f408.jpg",
    "%_*?\\\"'",
    "x" * 2048,
    "x" * 2047 + "y",
    "\u00e9" * 1024,
]

Connect = Callable[[], Store]


def altered(original: Signature, *, values: int, seed: int = 0) -> Signature:
    """Return a copy with some values off by one, as in a recompressed image."""
    copy = original.copy()
    indices = np.random.default_rng(seed).choice(LENGTH, values, replace=False)
    copy[indices] = np.where(copy[indices] > 0, copy[indices] - 1, copy[indices] + 1)
    return copy


def verdicts(store: Store, *items: Record | Tombstone) -> list[Verdict]:
    return [written.verdict for written in store.put(items)]


def nearest(store: Store, *queries: Signature, limit: int = 10) -> list[list[str]]:
    store.refresh()
    return [[candidate.filepath for candidate in row] for row in store.candidates(np.array(queries), limit=limit)]


def listed(store: Store, *, offset: int = 0, limit: int = 100) -> list[str]:
    store.refresh()
    return store.filepaths(offset=offset, limit=limit).filepaths


# Writing and reading


def test_a_record_is_read_unchanged(store: Store) -> None:
    put = record("cat.jpg", 7, metadata={"a": 1}, sha256=SHA256, url=URL)

    store.put([put])

    got = store.records(["cat.jpg"])["cat.jpg"]
    assert (got.filepath, got.seq, got.added) == (put.filepath, put.seq, put.added)
    assert (got.width, got.height, got.metadata) == (put.width, put.height, put.metadata)
    assert (got.sha256, got.url) == (SHA256, URL)
    assert np.array_equal(got.signatures, put.signatures)


def test_source_of_a_record_is_optional(store: Store) -> None:
    store.put([record("upload.jpg", 1, sha256=SHA256), record("older.jpg", 2), record("long.jpg", 3, url=URL * 100)])

    records = store.records(["upload.jpg", "older.jpg", "long.jpg"])

    assert (records["upload.jpg"].sha256, records["upload.jpg"].url) == (SHA256, None)
    assert (records["older.jpg"].sha256, records["older.jpg"].url) == (None, None)
    assert (records["long.jpg"].sha256, records["long.jpg"].url) == (None, URL * 100)


def test_source_is_replaced_with_its_record(store: Store) -> None:
    store.put([record("cat.jpg", 1, sha256=SHA256, url=URL), record("dog.jpg", 2)])

    store.put([record("cat.jpg", 3), record("dog.jpg", 4, sha256=SHA256, url=URL)])

    records = store.records(["cat.jpg", "dog.jpg"])
    assert (records["cat.jpg"].sha256, records["cat.jpg"].url) == (None, None)
    assert (records["dog.jpg"].sha256, records["dog.jpg"].url) == (SHA256, URL)


def test_features_are_read_as_last_written(store: Store) -> None:
    first, second = features_of(7, 7, 1_048_575), features_of()
    store.put([record("cat.jpg", 1, features=first), record("dog.jpg", 2, features=first), record("fox.jpg", 3)])

    store.put([record("cat.jpg", 4), record("fox.jpg", 5, features=second)])

    records = store.records(["cat.jpg", "dog.jpg", "fox.jpg"])
    assert {path: item.features for path, item in records.items()} == {
        "cat.jpg": None,
        "dog.jpg": first,
        "fox.jpg": second,
    }


def test_invalid_features_are_rejected(store: Store) -> None:
    written = store.put([record("cat.jpg", 1), record("bad.jpg", 2, features=features_of(1)[:-1])])

    assert [item.verdict for item in written] == [STORED, Verdict.REJECTED]
    assert "local features" in written[1].reason
    assert listed(store) == ["cat.jpg"]


def test_unknown_filepaths_have_no_records(store: Store) -> None:
    store.put([record("cat.jpg", 1)])

    assert store.records(["dog.jpg"]) == {}
    assert store.records([]) == {}


def test_a_repeated_filepath_is_read_once(store: Store) -> None:
    store.put([record("cat.jpg", 1)])

    assert list(store.records(["cat.jpg", "cat.jpg"])) == ["cat.jpg"]


def test_metadata_are_read_as_last_written(store: Store) -> None:
    store.put([record("cat.jpg", 1, metadata={"v": 1}), record("dog.jpg", 2), record("fox.jpg", 3)])
    store.refresh()

    store.put([record("cat.jpg", 4, metadata={"v": 2}), Tombstone(filepath="fox.jpg", seq=5, added=0)])

    assert store.metadata(["cat.jpg", "dog.jpg", "fox.jpg", "never.jpg"]) == {"cat.jpg": {"v": 2}, "dog.jpg": None}
    assert store.metadata([]) == {}


def test_metadata_may_have_a_later_sequence_number(store: Store) -> None:
    store.put([record("cat.jpg", 1, metadata={"v": 1}, metadata_seq=9), record("dog.jpg", 2), record("fox.jpg", 3)])
    store.put([record("fox.jpg", 4, metadata_seq=2**40), record("fox.jpg", 5)])

    records = store.records(["cat.jpg", "dog.jpg", "fox.jpg"])

    assert {path: (item.seq, item.metadata_seq) for path, item in records.items()} == {
        "cat.jpg": (1, 9),
        "dog.jpg": (2, None),
        "fox.jpg": (5, None),
    }


def test_a_newer_request_overwrites(store: Store) -> None:
    store.put([record("cat.jpg", 1, metadata={"v": 1})])

    assert verdicts(store, record("cat.jpg", 2, metadata={"v": 2})) == [STORED]
    assert store.records(["cat.jpg"])["cat.jpg"].metadata == {"v": 2}
    assert nearest(store, signature(1), limit=1) == [["cat.jpg"]]
    assert store.count() == 1


def test_an_overwritten_signature_is_gone(store: Store) -> None:
    store.put([record("cat.jpg", 1)])
    nearest(store, signature(1))

    store.put([record("cat.jpg", 2)])
    store.refresh()

    (candidate,) = store.candidates(signature(1)[None], limit=10)[0]
    assert np.array_equal(candidate.signatures, [signature(2)])


def test_an_older_request_is_superseded(store: Store) -> None:
    store.put([record("cat.jpg", 2, metadata={"v": 2})])

    assert verdicts(store, record("cat.jpg", 1, metadata={"v": 1})) == [SUPERSEDED]
    assert store.records(["cat.jpg"])["cat.jpg"].metadata == {"v": 2}


def test_the_newest_wins_within_one_call_too(store: Store) -> None:
    items = [record("cat.jpg", 2), record("cat.jpg", 1), record("dog.jpg", 5), record("cat.jpg", 4)]

    assert verdicts(store, *items) == [STORED, SUPERSEDED, STORED, STORED]
    assert store.records(["cat.jpg"])["cat.jpg"].seq == 4


def test_the_same_request_may_be_delivered_again(store: Store) -> None:
    item = record("cat.jpg", 3, metadata={"a": 1})
    store.put([item])

    assert verdicts(store, item, item) == [STORED, STORED]
    assert store.records(["cat.jpg"])["cat.jpg"].metadata == {"a": 1}
    assert listed(store) == ["cat.jpg"]


def test_an_empty_call_changes_nothing(store: Store) -> None:
    assert store.put([]) == []


def test_one_bad_item_does_not_fail_the_others(store: Store) -> None:
    bad = record("bad.jpg", 2, metadata={"n": float("nan")})

    written = store.put([record("cat.jpg", 1), bad, record("dog.jpg", 3)])

    assert [item.verdict for item in written] == [STORED, Verdict.REJECTED, STORED]
    assert written[1].reason
    assert listed(store) == ["cat.jpg", "dog.jpg"]


# Deleting


def test_a_deleted_image_is_not_found(store: Store) -> None:
    store.put([record("cat.jpg", 1), record("dog.jpg", 2)])
    nearest(store, signature(1))

    assert verdicts(store, deletion("cat.jpg", 3)) == [STORED]
    assert store.records(["cat.jpg"]) == {}
    assert nearest(store, signature(1)) == [["dog.jpg"]]
    assert listed(store) == ["dog.jpg"]
    assert store.count() == 1


def test_deleting_an_unknown_image_succeeds(store: Store) -> None:
    assert verdicts(store, deletion("cat.jpg", 1)) == [STORED]
    assert listed(store) == []


def test_deletions_of_one_request_share_its_sequence_number(store: Store) -> None:
    store.put([record(path, seq) for seq, path in enumerate(["a", "b", "c"], start=1)])

    assert verdicts(store, deletion("a", 4), deletion("b", 4)) == [STORED, STORED]
    assert verdicts(store, record("b", 3)) == [SUPERSEDED]
    assert listed(store) == ["c"]


def test_an_older_add_never_revives_a_deleted_image(store: Store) -> None:
    store.put([deletion("cat.jpg", 2)])

    assert verdicts(store, record("cat.jpg", 1)) == [SUPERSEDED]
    assert store.records(["cat.jpg"]) == {}


def test_a_newer_add_revives_a_deleted_image(store: Store) -> None:
    store.put([record("cat.jpg", 1), deletion("cat.jpg", 2)])

    assert verdicts(store, record("cat.jpg", 3)) == [STORED]
    assert nearest(store, signature(3)) == [["cat.jpg"]]
    assert store.count() == 1


def test_an_older_deletion_is_superseded(store: Store) -> None:
    store.put([record("cat.jpg", 2)])

    assert verdicts(store, deletion("cat.jpg", 1)) == [SUPERSEDED]
    assert list(store.records(["cat.jpg"])) == ["cat.jpg"]


def test_a_purge_removes_a_bounded_number_of_deletions(store: Store) -> None:
    store.put([deletion(f"{seq}.jpg", seq) for seq in range(1, 6)] + [record("cat.jpg", 6)])
    store.refresh()
    before = deletion("", 5).added

    purged = []
    for _ in range(3):
        purged.append(store.purge(before=before, limit=3))
        store.refresh()

    assert purged == [3, 1, 0]
    assert verdicts(store, record("5.jpg", 4)) == [SUPERSEDED]
    assert listed(store) == ["cat.jpg"]


def test_a_purged_deletion_is_not_missed_by_another_process(store: Store, connect: Connect) -> None:
    other = connect()
    store.put([record("cat.jpg", 1), record("dog.jpg", 2)])
    nearest(other, signature(1))

    store.put([deletion("cat.jpg", 3)])
    store.refresh()
    store.purge(before=deletion("", 4).added, limit=10)

    assert nearest(other, signature(1), limit=1) == [["dog.jpg"]]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_the_newest_request_wins_in_any_order_of_arrival(store: Store, chance: random.Random) -> None:
    group = uuid.uuid4().hex  # all examples share the store
    paths = [f"{group}/{number}.jpg" for number in range(4)]
    items = [
        deletion(path, seq) if chance.random() < 0.4 else record(path, seq)
        for path, seq in zip(chance.choices(paths, k=24), itertools.count(1), strict=False)
    ]
    last = {item.filepath: item for item in items}
    arrivals = items + chance.choices(items, k=8)
    chance.shuffle(arrivals)

    while arrivals:
        cut = chance.randint(1, 9)
        store.put(arrivals[:cut])
        arrivals = arrivals[cut:]

    kept = {path: item.seq for path, item in last.items() if isinstance(item, Record)}
    assert {path: stored.seq for path, stored in store.records(paths).items()} == kept


# Filepaths


def test_filepaths_are_compared_exactly(store: Store) -> None:
    store.put([record(path, seq) for seq, path in enumerate(AWKWARD_PATHS, 1)])

    records = store.records(AWKWARD_PATHS)

    assert {path: records[path].seq for path in AWKWARD_PATHS} == {path: n for n, path in enumerate(AWKWARD_PATHS, 1)}
    assert listed(store) == AWKWARD_PATHS


@pytest.mark.parametrize("path", AWKWARD_PATHS)
def test_deleting_one_filepath_touches_no_other(store: Store, path: str) -> None:
    store.put([record(other, seq) for seq, other in enumerate(AWKWARD_PATHS, 1)])

    store.put([deletion(path, 100)])

    assert listed(store) == [other for other in AWKWARD_PATHS if other != path]


def test_filepaths_are_listed_in_the_order_of_their_requests(store: Store) -> None:
    order = random.Random(1).sample(range(1, 31), 30)
    for seq in order:
        store.put([record(f"{seq}.jpg", seq)])
    store.put([record("3.jpg", 31), deletion("5.jpg", 32)])

    expected = [f"{seq}.jpg" for seq in [*range(1, 31), 3] if seq != 5]
    expected.remove("3.jpg")
    assert listed(store) == expected
    assert listed(store, offset=10, limit=7) == expected[10:17]
    assert listed(store, offset=28, limit=7) == expected[28:]
    assert listed(store, offset=29) == []
    assert listed(store, limit=0) == []


@pytest.mark.slow
def test_filepaths_are_listed_at_any_offset(store: Store) -> None:
    # Uneven, as times are: the first half arrives in a burst, the second over weeks.
    seqs = [*range(1, 6_001), *range(10**9, 10**9 + 6_500 * 10**6, 10**6)]
    for start in range(0, len(seqs), 1_000):
        store.put([record(f"{seq}.jpg", seq, FEATURELESS) for seq in seqs[start : start + 1_000]])
    store.put([deletion(f"{seq}.jpg", 10**12 + seq) for seq in seqs[::100]])
    expected = [f"{seq}.jpg" for index, seq in enumerate(seqs) if index % 100]
    count = len(expected)
    store.refresh()

    assert store.filepaths_after(0, limit=count + 10) == Page(expected, int(expected[-1].removesuffix(".jpg")))
    for offset in (0, 4_990, 5_001, 5_940, 9_990, 10_000, 11_234, count - 20, count - 1, count, count + 20_000):
        page = store.filepaths(offset=offset, limit=20)
        assert page.filepaths == expected[offset : offset + 20]
        if page.filepaths:
            assert page.after == int(page.filepaths[-1].removesuffix(".jpg"))
    assert listed(store, limit=count + 10) == expected
    assert store.count() == count


# Metadata

METADATA = [
    None,
    {},
    {"a": {"b": [{"c": 1}, {"c": None}], "d": []}, "e": True, "f": 1.5, "g": -(2**70), "h": ""},
    {"\u00e9\u6f22\U0001f408": ["\u00e9", "\u6f22", "\U0001f408", "a\x00b", "\ud800"]},
    {"a.b": 1, "a": {"b": 2}, "": 3, ".": 4, "id": 5, "_id": 6, "path": 7},
    {"long": "x" * 8192, "wide": "\u6f22" * 2730},
    {"many": ["y" * 4096] * 15},
    {"deep": json.loads('{"k":' * 30 + "[[[[1]]]]" + "}" * 30)},
    {"mixed": [1, "1", 1.0, True, None, {"1": 1}, [1]]},
    {"digits": [10**METADATA_DIGITS - 1, 1 - 10**METADATA_DIGITS]},
]


@pytest.mark.parametrize("metadata", METADATA)
def test_metadata_are_read_unchanged(store: Store, metadata: dict[str, Any] | None) -> None:
    assert verdicts(store, record("cat.jpg", 1, metadata=metadata)) == [STORED]

    assert store.records(["cat.jpg"])["cat.jpg"].metadata == metadata


def test_one_key_may_hold_different_types_in_different_records(store: Store) -> None:
    values = [1, "one", {"one": 1}, [1], None, 1.5, True]

    assert verdicts(store, *[record(f"{n}.jpg", n, metadata={"k": value}) for n, value in enumerate(values, 1)]) == [
        STORED for _ in values
    ]


def test_thousands_of_different_metadata_keys_are_stored(store: Store) -> None:
    items = [record(f"{n}.jpg", n, metadata={f"key-{n}-{k}": k for k in range(20)}) for n in range(1, 151)]

    assert set(verdicts(store, *items)) == {STORED}
    assert store.records(["150.jpg"])["150.jpg"].metadata == {f"key-150-{k}": k for k in range(20)}


# Filters

FILTERED = {
    "1.jpg": {"album": {"name": "cats", "year": 1999}, "tags": ["red", "old"]},
    "2.jpg": {"album": {"name": "cats", "year": 2024}, "tags": ["red"], "public": True},
    "3.jpg": {"album": {"name": "dogs", "year": 2024}, "tags": [], "public": False, "size": 1.5},
    "4.jpg": {"album.name": "cats", "people": [{"name": "Ann", "ids": [1, 2]}, {"name": "Bob"}]},
    "5.jpg": {"album": "cats", "": "empty key", "public": None, "a=b": "c", "\x00": "\x00"},
    "6.jpg": {"long": "x" * 40_000, "album": {"name": "CATS"}, "\u00e9\u6f22": "\U0001f408 \u6f22", "k" * 40_000: 1},
    "7.jpg": None,
}
FILTERS: list[tuple[dict[str, str], list[str]]] = [
    ({}, list(FILTERED)),
    ({"album.name": "cats"}, ["1.jpg", "2.jpg", "4.jpg"]),
    ({"album.name": "cats", "album.year": "2024"}, ["2.jpg"]),
    ({"album.name": "cats", "tags": "red"}, ["1.jpg", "2.jpg"]),
    ({"album": "cats"}, ["5.jpg"]),
    ({"album.year": "2024"}, ["2.jpg", "3.jpg"]),
    ({"album.year": "2024.0"}, []),
    ({"size": "1.5"}, ["3.jpg"]),
    ({"public": "true"}, ["2.jpg"]),
    ({"public": "false"}, ["3.jpg"]),
    ({"public": "null"}, []),
    ({"tags": "old"}, ["1.jpg"]),
    ({"tags": ""}, []),
    ({"people.name": "Bob"}, ["4.jpg"]),
    ({"people.ids": "2"}, ["4.jpg"]),
    ({"people": "Ann"}, []),
    ({"": "empty key"}, ["5.jpg"]),
    ({"a=b": "c"}, ["5.jpg"]),
    ({"a": "b=c"}, []),
    ({"\x00": "\x00"}, ["5.jpg"]),
    ({"long": "x" * 40_000}, ["6.jpg"]),
    ({"long": "x" * 39_999}, []),
    ({"\u00e9\u6f22": "\U0001f408 \u6f22"}, ["6.jpg"]),
    ({"k" * 40_000: "1"}, ["6.jpg"]),
    ({"album.name": "cat*"}, []),
    ({"*": "cats"}, []),
]


@pytest.fixture
def filtered(store: Store) -> Store:
    store.put([record(path, seq, metadata=metadata) for seq, (path, metadata) in enumerate(FILTERED.items(), 1)])
    store.refresh()
    return store


def test_a_filter_matches_records_with_all_its_values(filtered: Store) -> None:
    for where, expected in FILTERS:
        (candidates,) = filtered.candidates(signature(1)[None], limit=50, selection=Selection(where=where))

        assert filtered.filepaths(offset=0, limit=100, selection=Selection(where=where)).filepaths == expected
        assert filtered.filepaths_after(0, limit=100, selection=Selection(where=where)).filepaths == expected
        assert filtered.count(selection=Selection(where=where)) == len(expected)
        assert {candidate.filepath for candidate in candidates} == set(expected)


def test_a_filtered_list_may_be_read_in_parts(filtered: Store) -> None:
    assert filtered.filepaths(offset=1, limit=1, selection=Selection(where={"album.name": "cats"})).filepaths == [
        "2.jpg"
    ]
    assert filtered.filepaths(offset=2, limit=5, selection=Selection(where={"album.name": "cats"})).filepaths == [
        "4.jpg"
    ]
    assert filtered.filepaths_after(1, limit=1, selection=Selection(where={"album.name": "cats"})) == Page(["2.jpg"], 2)


def test_filtered_search_finds_records_behind_nearer_excluded_ones(store: Store) -> None:
    original = signature(1)
    near = [altered(original, values=4, seed=seq) for seq in range(200)]
    store.put([record(f"{seq}.jpg", seq, row, metadata={"a": "near"}) for seq, row in enumerate(near, 10)])
    store.put([record(f"far-{seq}.jpg", seq, metadata={"a": ["far"]}) for seq in range(300, 330)])
    store.put([record("less-far.jpg", 400, altered(original, values=60), metadata={"a": ["far"]})])
    store.refresh()

    candidates = store.candidates(np.array([original, -original]), limit=5, selection=Selection(where={"a": "far"}))

    assert candidates[0][0].filepath == "less-far.jpg"
    assert [len(row) >= 5 for row in candidates] == [True, True]
    assert all("far" in candidate.filepath for row in candidates for candidate in row)


def test_a_filter_uses_metadata_as_last_written(store: Store) -> None:
    store.put([record("cat.jpg", 1, metadata={"a": "old", "b": 1}), record("dog.jpg", 2, metadata={"a": "old"})])
    store.put([record("cat.jpg", 3, metadata={"a": "new", "b": 1}), deletion("dog.jpg", 4)])
    store.refresh()

    counts = [store.count(selection=Selection(where=where)) for where in ({"a": "old"}, {"a": "new"}, {"b": "1"})]

    assert counts == [0, 1, 1]


def test_a_superseded_request_leaves_no_trace_in_filters(store: Store) -> None:
    store.put([record("cat.jpg", 3, metadata={"a": "new"}), record("cat.jpg", 2, metadata={"a": "late"})])
    store.refresh()

    assert store.count(selection=Selection(where={"a": "late"})) == 0
    assert store.count(selection=Selection(where={"a": "new"})) == 1


# Walks


def test_a_walk_lists_each_record_once_in_order(store: Store) -> None:
    store.put([record(f"{seq}.jpg", seq * 7) for seq in range(1, 24)])
    store.put([deletion("5.jpg", 1_000)])
    store.refresh()

    walked: list[str] = []
    page = store.filepaths_after(0, limit=5)
    while page.filepaths:
        walked += page.filepaths
        page = store.filepaths_after(page.after, limit=5)

    assert walked == [f"{seq}.jpg" for seq in range(1, 24) if seq != 5]
    assert page == Page([], 23 * 7)


def test_a_walk_continues_from_any_offset(store: Store) -> None:
    store.put([record(f"{seq}.jpg", seq * 7) for seq in range(1, 24)])
    store.put([deletion("5.jpg", 1_000)])
    store.refresh()

    pages = [store.filepaths(offset=offset, limit=3) for offset in (0, 3, 10, 21)]
    rests = [store.filepaths_after(page.after, limit=100).filepaths for page in pages]

    expected = [f"{seq}.jpg" for seq in range(1, 24) if seq != 5]
    assert [page.filepaths for page in pages] == [expected[0:3], expected[3:6], expected[10:13], expected[21:]]
    assert rests == [expected[3:], expected[6:], expected[13:], []]


def test_a_walk_is_not_disturbed_by_writes(store: Store) -> None:
    store.put([record(f"{seq}.jpg", seq) for seq in range(1, 11)])
    store.refresh()

    first = store.filepaths_after(0, limit=4)
    store.put([deletion("1.jpg", 20), record("2.jpg", 21), record("8.jpg", 22), deletion("9.jpg", 23)])
    store.put([record("new.jpg", 24)])
    store.refresh()
    rest = store.filepaths_after(first.after, limit=100)

    assert first == Page(["1.jpg", "2.jpg", "3.jpg", "4.jpg"], 4)
    assert rest == Page(["5.jpg", "6.jpg", "7.jpg", "10.jpg", "2.jpg", "8.jpg", "new.jpg"], 24)


# Searching


def test_the_nearest_images_are_first(store: Store) -> None:
    original = signature(1)
    near = altered(original, values=20)
    nearer = altered(original, values=5)
    store.put([record("original.jpg", 1, original), record("near.jpg", 2, near), record("nearer.jpg", 3, nearer)])
    store.put([record(f"{seq}.jpg", seq) for seq in range(10, 40)])

    paths = nearest(store, original, limit=10)[0]

    assert set(paths[:3]) == {"original.jpg", "nearer.jpg", "near.jpg"}
    assert paths[0] == "original.jpg"


def test_a_candidate_has_its_stored_signatures(store: Store) -> None:
    store.put([record("cat.jpg", 1)])
    store.refresh()

    (candidate,) = store.candidates(signature(1)[None], limit=1)[0]

    assert np.array_equal(candidate.signatures, [signature(1)])


def test_an_empty_store_has_no_candidates(store: Store) -> None:
    assert nearest(store, signature(1), signature(2)) == [[], []]


def test_sixteen_queries_have_separate_results(store: Store) -> None:
    originals = [signature(seq) for seq in range(1, 9)]
    queries = [altered(original, values=8) for original in originals]
    store.put([record(f"{seq}.jpg", seq, original) for seq, original in enumerate(originals, 1)])
    store.put([record(f"-{seq}.jpg", seq, -original) for seq, original in enumerate(originals, 1)])

    results = nearest(store, *queries, *(-query for query in queries), limit=3)

    assert [row[0] for row in results] == [f"{n}.jpg" for n in range(1, 9)] + [f"-{n}.jpg" for n in range(1, 9)]


def test_many_queries_have_separate_results(store: Store) -> None:
    originals = [signature(seq) for seq in range(1, 31)]
    store.put([record(f"{seq}.jpg", seq, original) for seq, original in enumerate(originals, 1)])
    store.put([record("turned.jpg", 31, turn(altered(originals[6], values=20))[5])])
    store.refresh()
    similar = [altered(original, values=8) for original in originals]
    queries = np.concatenate([turn(each) for each in [*similar, FEATURELESS, originals[6]]])

    results = store.candidates(queries, limit=2, max_distance=0.45)

    first = [[candidate.filepath for candidate in row[:1]] for row in results]
    assert first[: 30 * 16 : 16] == [[f"{seq}.jpg"] for seq in range(1, 31)]
    assert first[30 * 16 :: 16] == [[], ["7.jpg"]]
    assert first[6 * 16 + 5] == ["turned.jpg"]


def test_a_featureless_image_is_stored_but_never_found(store: Store) -> None:
    store.put([record("blank.jpg", 1, FEATURELESS), record("cat.jpg", 2)])

    assert nearest(store, signature(2), FEATURELESS) == [["cat.jpg"], []]
    assert listed(store) == ["blank.jpg", "cat.jpg"]
    assert np.array_equal(store.records(["blank.jpg"])["blank.jpg"].signatures, [FEATURELESS])


def test_an_image_that_became_featureless_is_not_found(store: Store) -> None:
    store.put([record("cat.jpg", 1), record("dog.jpg", 2)])
    nearest(store, signature(1))

    store.put([record("cat.jpg", 3, FEATURELESS)])

    assert nearest(store, signature(1)) == [["dog.jpg"]]


def test_an_image_is_found_once_by_any_signature(store: Store) -> None:
    whole, trimmed = signature(1), altered(signature(1), values=100)
    store.put([record("framed.jpg", 1, whole, trimmed), record("blank.jpg", 2, FEATURELESS, signature(2))])
    store.put([record(f"{seq}.jpg", seq) for seq in range(10, 30)])

    results = nearest(store, whole, altered(trimmed, values=3, seed=1), signature(2), limit=50)

    assert [row[0] for row in results] == ["framed.jpg", "framed.jpg", "blank.jpg"]
    assert all(len(row) == len(set(row)) == 22 for row in results)
    assert np.array_equal(store.records(["framed.jpg"])["framed.jpg"].signatures, [whole, trimmed])


def test_all_images_with_one_signature_are_found(store: Store) -> None:
    store.put([record(f"{seq}.jpg", seq, signature(0)) for seq in range(1, 41)])

    assert set(nearest(store, signature(0), limit=40)[0]) == {f"{seq}.jpg" for seq in range(1, 41)}


def test_near_records_are_not_missed(store: Store) -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(-2, 3, (1_500, LENGTH)).astype(np.int8)
    store.put([record(f"{seq}.jpg", seq, row) for seq, row in enumerate(rows, 1)])
    picks = rng.choice(len(rows), 20, replace=False).tolist()
    queries = [altered(rows[pick], values=60, seed=pick) for pick in picks]

    results = nearest(store, *queries, limit=5)

    assert [row[0] for row in results] == [f"{pick + 1}.jpg" for pick in picks]


def test_writes_of_another_process_are_found(store: Store, connect: Connect) -> None:
    other = connect()
    assert nearest(store, signature(1)) == [[]]

    for seq in range(1, 5):
        other.put([record("cat.jpg", seq), record(f"{seq}.jpg", 10 * seq)])

        assert nearest(store, signature(seq), limit=1) == [["cat.jpg"]]
        assert nearest(store, signature(10 * seq), limit=1) == [[f"{seq}.jpg"]]


def test_a_record_is_read_right_after_it_was_written(store: Store) -> None:
    for seq in range(1, 6):
        store.put([record("cat.jpg", seq)])

        assert store.records(["cat.jpg"])["cat.jpg"].seq == seq


def test_threads_write_and_search_at_once(store: Store) -> None:
    def work(worker: int) -> list[list[str]]:
        results = []
        for seq in range(worker * 100, worker * 100 + 10):
            store.put([record(f"{seq}.jpg", seq)])
            results += nearest(store, signature(seq), limit=1)
        return results

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(1, 9)))

    assert results == [[[f"{seq}.jpg"] for seq in range(w * 100, w * 100 + 10)] for w in range(1, 9)]
    assert store.count() == 80


# Opening, health and errors


def test_preparing_again_keeps_all_records(store: Store, connect: Connect) -> None:
    store.put([record("cat.jpg", 1)])

    other = connect()
    other.prepare()

    assert listed(other) == ["cat.jpg"]


def test_the_use_of_disks_is_reported(store: Store) -> None:
    store.put([record("cat.jpg", 1)])
    store.refresh()

    disk = store.disk()

    assert disk.used_bytes > LENGTH
    assert disk.free_bytes is not None
    assert disk.free_bytes > 0


def test_an_available_store_reports_its_health(store: Store) -> None:
    assert store.health() == Health(reads=True, writes=True)


CALLS: Sequence[Callable[[Store], object]] = [
    lambda store: store.put([record("cat.jpg", 1)]),
    lambda store: store.candidates(signature(1)[None], limit=1),
    lambda store: store.records(["cat.jpg"]),
    lambda store: store.filepaths(offset=0, limit=1),
    lambda store: store.filepaths_after(0, limit=1),
    lambda store: store.count(),
    lambda store: store.purge(before=1, limit=1),
]


@pytest.mark.parametrize("call", CALLS, ids=["put", "candidates", "records", "filepaths", "walk", "count", "purge"])
def test_an_absent_store_is_unavailable(absent: Store, call: Callable[[Store], object]) -> None:
    with pytest.raises(StoreUnavailable) as raised:
        call(absent)

    assert "secret" not in str(raised.value)


def test_an_absent_store_reports_its_health(absent: Store) -> None:
    health = absent.health()

    assert not health.reads
    assert not health.writes
    assert health.detail
    assert "secret" not in health.detail
