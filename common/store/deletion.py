"""Deletion of many images in bounded steps."""

from dataclasses import dataclass

from common.errors import StoreError, StoreUnavailable
from common.store.base import Selection, Store, Tombstone, Verdict


@dataclass(frozen=True, slots=True)
class Step:
    """The number of images that one step deleted, and whether none is left."""

    deleted: int
    is_last: bool


def delete_before(store: Store, selection: Selection, *, seq: int, added: int, limit: int) -> Step:
    """Delete at most `limit` images of the selection that were stored by requests before `seq`.

    A process may die between two steps: the next step continues. Images of later requests are kept, and no earlier
    request restores an image. `seq` is the sequence number of the deletion, `added` its time in milliseconds since
    1970.
    """
    store.refresh()
    page = store.filepaths_after(0, limit=limit, selection=selection)
    tombstones = [
        Tombstone(collection=selection.collection, filepath=filepath, seq=seq, added=added)
        for filepath in page.filepaths
    ]
    outcomes = store.put(tombstones)
    for outcome in outcomes:
        if outcome.verdict in {Verdict.RETRY, Verdict.REJECTED}:
            kind = StoreUnavailable if outcome.verdict is Verdict.RETRY else StoreError
            message = f"an image cannot be deleted: {outcome.reason}"
            raise kind(message)
    deleted = sum(outcome.verdict is Verdict.STORED for outcome in outcomes)
    return Step(deleted, is_last=len(page.filepaths) < limit or page.after >= seq)
