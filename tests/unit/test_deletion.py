"""Deletion in steps: an image that cannot be deleted now ends the step with an error."""

from collections.abc import Sequence

import pytest

from common.errors import StoreError, StoreUnavailable
from common.store.base import DEFAULT_SELECTION, Record, Tombstone, Verdict, Written
from common.store.deletion import Step, delete_before
from support.records import record
from support.stores import MemoryStore


class BusyStore(MemoryStore):
    """A store that accepts deletions of one image in two."""

    def put(self, items: Sequence[Record | Tombstone]) -> list[Written]:
        accepted = [item for item in items if isinstance(item, Record) or item.seq % 2 == int(item.filepath) % 2]
        super().put(accepted)
        return [Written(Verdict.STORED if item in accepted else Verdict.RETRY, "busy") for item in items]


def test_later_step_deletes_images_that_were_left() -> None:
    store = BusyStore()
    store.put([record(f"{seq}", seq) for seq in range(1, 7)])

    with pytest.raises(StoreUnavailable, match="busy"):
        delete_before(store, DEFAULT_SELECTION, seq=10, added=0, limit=10)
    left = store.filepaths_after(0, limit=10).filepaths
    last = delete_before(store, DEFAULT_SELECTION, seq=11, added=0, limit=10)

    assert left == ["1", "3", "5"]
    assert (last, store.count()) == (Step(3, is_last=True), 0)


def test_rejected_deletion_is_an_error() -> None:
    store = MemoryStore()
    store.put([record("cat.jpg", 1)])
    store.refused = {"cat.jpg": "too long"}

    with pytest.raises(StoreError, match="too long") as raised:
        delete_before(store, DEFAULT_SELECTION, seq=10, added=0, limit=10)

    assert not isinstance(raised.value, StoreUnavailable)
