"""The contract of all stores about patches: adds, patches and deletes of a filepath arrive in any order, repeatedly."""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count, permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from common.store.base import Item, Patch, Record, Selection, Store, Tombstone, Verdict
from common.store.patches import MAX_BYTES, MAX_STEPS
from contract.conftest import STORES, opening
from support.records import deletion, patch, record

STORED, SUPERSEDED, REJECTED = Verdict.STORED, Verdict.SUPERSEDED, Verdict.REJECTED
Connect = Callable[[], Store]
Metadata = Mapping[str, Any] | None


# Flat vectors change no write.
@pytest.fixture(params=["memory", *STORES[:-1]])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Return a function that opens the store of this test again; the store in memory follows this contract too."""
    yield from opening(request.getfixturevalue(f"build_{request.param}"))


def verdicts(store: Store, *items: Item) -> list[Verdict]:
    return [written.verdict for written in store.put(items)]


def metadata_of(store: Store, filepath: str = "cat.jpg", collection: str = "default") -> Any:
    return store.metadata([filepath], collection=collection).get(filepath, "absent")


def passing(store: Store, **where: str) -> list[str]:
    store.refresh()
    return store.filepaths_after(0, limit=10, selection=Selection(where=where)).filepaths


def merged(target: Any, changes: Any) -> Any:
    """Return the result of a merge patch by the pseudocode of RFC 7396, section 2."""
    if not isinstance(changes, dict):
        return changes
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def test_patch_changes_metadata_and_nothing_else(store: Store) -> None:
    original = record("cat.jpg", 5, metadata={"a": 1, "b": {"c": [1], "d": 2}}, sha256=bytes(32), url="http://h/a")
    store.put([original, record("dog.jpg", 6)])

    written = verdicts(store, patch("cat.jpg", 7, {"a": None, "b": {"c": "x"}, "e": True}))

    assert written == [STORED]
    existing = store.records(["cat.jpg"])["cat.jpg"]
    assert existing.metadata == {"b": {"c": "x", "d": 2}, "e": True}
    assert (existing.seq, existing.metadata_seq, existing.added) == (5, 7, original.added)
    assert (existing.sha256, existing.url) == (original.sha256, original.url)
    assert existing.signatures[0].tobytes() == original.signatures[0].tobytes()
    assert passing(store) == ["cat.jpg", "dog.jpg"]


def test_filters_use_patched_metadata(store: Store) -> None:
    store.put([record("cat.jpg", 1, metadata={"album": "cats", "year": 2020})])

    store.put([patch("cat.jpg", 2, {"album": "pets"})])

    assert (passing(store, album="pets"), passing(store, album="cats")) == (["cat.jpg"], [])
    assert passing(store, year="2020") == ["cat.jpg"]


CASES: list[tuple[Metadata, Metadata, Metadata]] = [
    (None, {"a": 1}, {"a": 1}),
    (None, {"a": None}, {}),
    ({"a": 1}, {}, {"a": 1}),
    ({"a": 1}, None, None),
    ({"a": None, "b": 1}, {"b": 2}, {"a": None, "b": 2}),
    ({"a": {"b": 1}}, {"a": [{"b": None}]}, {"a": [{"b": None}]}),
    ({"a": 5}, {"a": {"b": {"c": None, "d": ""}}}, {"a": {"b": {"d": ""}}}),
    ({"": {"": 1}, "a.b": 1}, {"": {"": None}, "a.b": True}, {"": {}, "a.b": True}),
    ({"a": 1}, {"a": True}, {"a": True}),
]


def test_patch_follows_the_rfc(store: Store) -> None:
    for number, (before, changes, _) in enumerate(CASES):
        store.put([record(f"{number}", 1 + number, metadata=before), patch(f"{number}", 101 + number, changes)])

    results = store.metadata([f"{number}" for number in range(len(CASES))])

    for number, (_, _, after) in enumerate(CASES):
        assert json.dumps(results[f"{number}"], sort_keys=True) == json.dumps(after, sort_keys=True)


def test_add_that_arrives_after_patches_gets_them(store: Store) -> None:
    written = verdicts(store, patch("cat.jpg", 8, {"b": 2}), patch("cat.jpg", 7, {"b": 1, "a": 1}))
    absent = metadata_of(store)

    written += verdicts(store, record("cat.jpg", 6, metadata={"c": 0}))

    assert (written, absent) == ([STORED] * 3, "absent")
    assert metadata_of(store) == {"a": 1, "b": 2, "c": 0}
    assert passing(store, b="2", c="0") == ["cat.jpg"]


def test_add_between_two_patches_gets_the_later_one(store: Store) -> None:
    store.put([record("cat.jpg", 1, metadata={"n": 1}), patch("cat.jpg", 2, {"a": 2}), patch("cat.jpg", 4, {"b": 4})])

    written = verdicts(store, record("cat.jpg", 3, metadata={"n": 3}))

    assert (written, metadata_of(store)) == ([STORED], {"n": 3, "b": 4})


def test_redelivered_add_keeps_the_patch(store: Store) -> None:
    add = record("cat.jpg", 1, metadata={"a": 1})
    store.put([add, patch("cat.jpg", 2, {"a": 2})])

    written = verdicts(store, add)

    assert (written, metadata_of(store)) == ([STORED], {"a": 2})


def test_later_requests_outrank_a_patch(store: Store) -> None:
    store.put([record("cat.jpg", 1), deletion("cat.jpg", 4), record("dog.jpg", 4, metadata={"a": 4})])

    written = verdicts(store, patch("cat.jpg", 3, {"a": 3}), patch("dog.jpg", 3, {"a": 3}))

    assert written == [SUPERSEDED, SUPERSEDED]
    assert (metadata_of(store), metadata_of(store, "dog.jpg")) == ("absent", {"a": 4})


def test_adjacent_requests_keep_their_order(store: Store) -> None:
    arrivals = [record("cat.jpg", 1, metadata={"n": 1}), patch("cat.jpg", 5, {"a": 5}), patch("cat.jpg", 6, {"b": 6})]
    store.put(arrivals)

    later = [*verdicts(store, record("cat.jpg", 2)), *verdicts(store, record("cat.jpg", 3, metadata={"n": 3}))]
    patched = metadata_of(store)
    deleted = [*verdicts(store, deletion("cat.jpg", 4)), *verdicts(store, record("cat.jpg", 3))]

    assert (later, patched) == ([STORED, STORED], {"n": 3, "a": 5, "b": 6})
    assert (deleted, metadata_of(store)) == ([STORED, SUPERSEDED], "absent")


def test_other_processes_see_the_patches_that_wait(connect: Connect) -> None:
    first, second = connect(), connect()
    first.prepare()
    first.put([patch("cat.jpg", 2, {"a": 1})])

    second.put([record("cat.jpg", 1)])

    assert metadata_of(first) == {"a": 1}


def test_metadata_of_a_later_request_are_not_patched_again(store: Store) -> None:
    store.put([patch("cat.jpg", 4, {"a": 4}), patch("cat.jpg", 6, {"b": 6})])

    store.put([record("cat.jpg", 9, metadata={"a": 5}, metadata_seq=5)])
    store.put([patch("cat.jpg", 7, {"c": 7}), patch("cat.jpg", 3, {"d": 3})])

    assert metadata_of(store) == {"a": 5, "b": 6, "c": 7}


def test_old_patches_are_purged_and_keep_their_effect(store: Store) -> None:
    store.put([record("cat.jpg", 1, metadata={"n": 1}), patch("cat.jpg", 2, {"a": 2}), patch("dog.jpg", 2, {"a": 2})])
    store.put([patch("cat.jpg", 2, {"c": 2}, collection="shop"), patch("cat.jpg", 3, {"d": 3}, collection="shop")])
    store.refresh()

    purged = store.purge(before=1_700_000_000_003, limit=100)

    store.put([patch("cat.jpg", 4, {"b": 4}), record("dog.jpg", 1), record("cat.jpg", 1, collection="shop")])
    assert purged == 2
    assert metadata_of(store) == {"n": 1, "a": 2, "b": 4}
    assert metadata_of(store, "dog.jpg") is None
    assert metadata_of(store, collection="shop") == {"c": 2, "d": 3}


def test_patches_are_no_images(store: Store) -> None:
    store.put([patch("cat.jpg", 2, {"a": 2}), patch("dog.jpg", 3, {"a": 2}, collection="shop")])

    store.refresh()
    assert (store.count(), passing(store), passing(store, a="2")) == (0, [], [])
    assert store.records(["cat.jpg"]) == {}
    assert [(one.name, one.images) for one in store.collections()] == [("default", 0)]


def test_many_patches_are_all_applied(store: Store) -> None:
    store.put([record("cat.jpg", 1, metadata={"n": 1})])
    changes = [patch("cat.jpg", 10 + n, {f"k{n}": n, "last": n}) for n in range(MAX_STEPS + 5)]

    written = verdicts(store, *changes)
    store.put([record("cat.jpg", 5, metadata={"n": 5})])

    assert written == [STORED] * len(changes)
    assert metadata_of(store) == {"n": 5, "last": MAX_STEPS + 4, **{f"k{n}": n for n in range(MAX_STEPS + 5)}}


def test_waiting_patches_have_a_limit(store: Store) -> None:
    large = "x" * 60_000
    fitting = MAX_BYTES // 60_100

    written = verdicts(store, *[patch("cat.jpg", 2 + n, {f"k{n}": large}) for n in range(fitting + 1)])

    assert written == [STORED] * fitting + [REJECTED]
    store.put([record("cat.jpg", 1)])
    assert len(metadata_of(store)) == fitting


def test_stored_image_may_be_patched_without_end(store: Store) -> None:
    store.put([record("cat.jpg", 1, metadata={"kept": 1})])
    changes = [
        patch("cat.jpg", 10 + n, {"last": n, f"k{n}": n, **{f"{n}-{key}-{'x' * 500}": None for key in range(100)}})
        for n in range(2 * MAX_BYTES // 50_000)
    ]

    written = [verdicts(store, change) for change in changes]
    store.put([patch("cat.jpg", 5, {"last": "late"})])

    expected = {"kept": 1, "last": len(changes) - 1, **{f"k{n}": n for n in range(len(changes))}}
    assert written == [[STORED]] * len(changes)
    assert metadata_of(store) == expected
    store.put([record("cat.jpg", 1, metadata={"kept": 1})])
    assert metadata_of(store) == expected


def test_patch_without_json_is_rejected(store: Store) -> None:
    bad: list[Any] = [{"a": float("nan")}, {"a": {1}}]
    store.put([record("cat.jpg", 1, metadata={"a": 1})])

    written = verdicts(store, *[patch("cat.jpg", 2, one) for one in bad], patch("cat.jpg", 3, {"b": 1}))

    assert (written, metadata_of(store)) == ([REJECTED, REJECTED, STORED], {"a": 1, "b": 1})


def test_every_order_of_four_requests_ends_the_same(store: Store) -> None:
    names = count()

    for order in permutations(range(4)):
        path = f"{next(names)}.jpg"
        requests = [
            record(path, 1, metadata={"n": 1}),
            patch(path, 2, {"a": {"b": 1}, "n": None}),
            patch(path, 3, {"a": {"c": 2}}),
            record(path, 1, metadata={"n": 1}),
        ]
        for number in order:
            store.put([requests[number]])
        assert metadata_of(store, path) == {"a": {"b": 1, "c": 2}}


def test_concurrent_patches_and_adds_lose_nothing(connect: Connect) -> None:
    stores = [connect() for _ in range(3)]
    stores[0].prepare()
    requests: list[Item] = [patch("cat.jpg", 10 + n, {f"k{n}": n}) for n in range(18)]
    requests[6:6] = [record("cat.jpg", seq, metadata={"n": seq}) for seq in (1, 3, 2)]

    def send(worker: int) -> list[Verdict]:
        own = requests[worker::3]
        results: list[Verdict] = []
        while own:
            outcomes = [written.verdict for written in stores[worker].put(own)]
            results += [verdict for verdict in outcomes if verdict is not Verdict.RETRY]
            own = [item for item, verdict in zip(own, outcomes, strict=True) if verdict is Verdict.RETRY]
        return results

    with ThreadPoolExecutor(3) as pool:
        outcomes = [verdict for verdicts in pool.map(send, range(3)) for verdict in verdicts]

    assert metadata_of(stores[0]) == {"n": 3, **{f"k{n}": n for n in range(18)}}
    assert set(outcomes) <= {STORED, SUPERSEDED}
    assert outcomes.count(STORED) >= 19


VALUES = st.recursive(
    st.sampled_from([None, 0, 1, True, "x", [1, None]]),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", ""]), inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.none() | st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3)
PATHS = st.sampled_from(["cat.jpg", "dir/dog.jpg"])


class Requests(RuleBasedStateMachine):
    """Requests are accepted in one order and arrive in another; the model replays those that arrived."""

    accepted = Bundle("accepted")
    store: Store
    collections = count()

    def __init__(self) -> None:
        super().__init__()
        self.collection = f"run-{next(self.collections)}"
        self.seq = 0
        self.arrived: dict[int, Item] = {}

    @rule(target=accepted, path=PATHS, metadata=OBJECTS)
    def accept_add(self, path: str, metadata: Metadata) -> Item:
        self.seq += 1
        return record(path, self.seq, metadata=metadata, collection=self.collection)

    @rule(target=accepted, path=PATHS, metadata=OBJECTS)
    def accept_patch(self, path: str, metadata: Metadata) -> Item:
        self.seq += 1
        return patch(path, self.seq, metadata, collection=self.collection)

    @rule(target=accepted, path=PATHS)
    def accept_delete(self, path: str) -> Item:
        self.seq += 1
        return deletion(path, self.seq, collection=self.collection)

    @rule(item=accepted)
    def arrive(self, item: Item) -> None:
        others = [one for one in self.arrived.values() if one.filepath == item.filepath]
        is_outranked = any(not isinstance(one, Patch) and one.seq > item.seq for one in others)

        written = self.store.put([item])

        assert [one.verdict for one in written] == [SUPERSEDED if is_outranked else STORED]
        self.arrived[item.seq] = item
        self.check(item.filepath)

    def check(self, path: str) -> None:
        expected = self.replay(path)
        existing = self.store.records([path], collection=self.collection).get(path)
        assert (existing is None) == (expected is None)
        if existing is not None and expected is not None:
            assert existing.seq == expected.seq
            assert json.dumps(existing.metadata, sort_keys=True) == json.dumps(expected.metadata, sort_keys=True)
            assert self.store.metadata([path], collection=self.collection) == {path: expected.metadata}

    def replay(self, path: str) -> Record | None:
        state: Record | None = None
        for _, item in sorted(self.arrived.items()):
            if item.filepath != path:
                continue
            if isinstance(item, Patch):
                if state is not None:
                    changed = merged(state.metadata, item.metadata)
                    state = record(path, state.seq, metadata=changed, collection=self.collection)
            else:
                state = None if isinstance(item, Tombstone) else item
        return state


def test_requests_in_any_order_act_in_their_order(store: Store, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["connect"]
    machine = type("RequestsOfStore", (Requests,), {"store": store})
    examples = {"memory": 10, "sqlite": 40}.get(kind, 5)

    with closing(store):
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=24,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
