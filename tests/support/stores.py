"""A store in memory, and waiting for records in a store."""

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreUnavailable
from common.store.base import (
    DEFAULT_COLLECTION,
    DEFAULT_SELECTION,
    Candidate,
    Collection,
    Disk,
    Health,
    Item,
    Page,
    Patch,
    Record,
    Selection,
    Store,
    Tombstone,
    Verdict,
    WordCandidate,
    Written,
)
from common.store.labels import labels, required_labels
from common.store.patches import History, Unpatched
from common.store.words import indexed_words
from support.waiting import wait_until


def wait_for_stored(store: Store, count: int) -> None:
    """Wait until at least `count` images are stored."""
    wait_until(lambda: store.count() >= count, f"{count} are stored")


class MemoryStore:
    """A store in memory; `away` makes it unavailable, `read_only` rejects writes."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Record | Tombstone] = {}
        self.histories: dict[tuple[str, str], tuple[History, int]] = {}
        self.unpatched: dict[tuple[str, str], Unpatched] = {}
        self.writes: list[list[Item]] = []
        self.away = False
        self.read_only = False
        self.refused: Mapping[str, str] = {}
        self.lock = threading.Lock()
        self.entries: dict[str, int | None] = {}

    def prepare(self) -> None:
        self._check()

    def put(self, items: Sequence[Item]) -> list[Written]:
        self._check()
        if self.read_only:
            raise StoreUnavailable("the store is read only")
        with self.lock:
            self.writes.append(list(items))
            return [self._put(item) for item in items]

    def candidates(
        self,
        queries: NDArray[np.int8],
        *,
        limit: int,
        selection: Selection = DEFAULT_SELECTION,
        max_distance: float | None = None,  # noqa: ARG002 - an option to do less
    ) -> list[list[Candidate]]:
        self._check()
        candidates = [Candidate(record.filepath, record.signatures) for record in self._records(selection)]
        return [candidates[:limit] for _ in queries]

    def candidates_by_words(
        self, words: NDArray[np.uint32], *, limit: int, selection: Selection = DEFAULT_SELECTION
    ) -> list[WordCandidate]:
        self._check()
        required = set(words.tolist())
        everything = [(record, self._words(record)) for record in self.kept.values()]
        having = Counter(word for _, words in everything for word in words)
        sums = {
            (record.collection, record.filepath): sum(
                math.log1p((len(everything) - having[word] + 0.5) / (having[word] + 0.5)) for word in words & required
            )
            for record, words in everything
        }
        best = sorted(self._records(selection), key=lambda item: -sums[item.collection, item.filepath])[:limit]
        return [
            WordCandidate(record.filepath, record.features)
            for record in best
            if record.features is not None and sums[record.collection, record.filepath]
        ]

    def records(self, filepaths: Sequence[str], *, collection: str = DEFAULT_COLLECTION) -> dict[str, Record]:
        records = self._records(Selection(collection=collection))
        return {record.filepath: record for record in records if record.filepath in filepaths}

    def metadata(
        self, filepaths: Sequence[str], *, collection: str = DEFAULT_COLLECTION
    ) -> dict[str, Mapping[str, Any] | None]:
        return {
            filepath: record.metadata for filepath, record in self.records(filepaths, collection=collection).items()
        }

    def filepaths(self, *, offset: int, limit: int, selection: Selection = DEFAULT_SELECTION) -> Page:
        self._check()
        records = self._records(selection)[offset : offset + limit]
        return Page([record.filepath for record in records], records[-1].seq if records else 0)

    def filepaths_after(self, seq: int, *, limit: int, selection: Selection = DEFAULT_SELECTION) -> Page:
        self._check()
        records = [record for record in self._records(selection) if record.seq > seq][:limit]
        return Page([record.filepath for record in records], records[-1].seq if records else seq)

    def count(self, *, selection: Selection = DEFAULT_SELECTION) -> int:
        self._check()
        return len(self._records(selection))

    def collections(self) -> list[Collection]:
        self._check()
        with self.lock:
            counts = Counter(item.collection for item in self.kept.values() if isinstance(item, Record))
            names = sorted({DEFAULT_COLLECTION, *counts, *self.entries})
        return [Collection(name=name, images=counts[name], max_images=self.entries.get(name)) for name in names]

    def collection(self, name: str) -> Collection | None:
        return next((collection for collection in self.collections() if collection.name == name), None)

    def create_collection(self, name: str) -> None:
        self._check()
        self.entries.setdefault(name, None)

    def put_collection(self, name: str, *, max_images: int | None) -> None:
        self._check()
        self.entries[name] = max_images

    def delete_collection(self, name: str) -> bool:
        existing = self.collection(name)
        if existing is not None and existing.images:
            return False
        self.entries.pop(name, None)
        return True

    def disk(self) -> Disk:
        self._check()
        return Disk(used_bytes=1_500_000, free_bytes=None)

    def refresh(self) -> None:
        self._check()

    def purge(self, *, before: int, limit: int) -> int:
        old = [item for item in self.kept.values() if isinstance(item, Tombstone) and item.added < before][:limit]
        for item in old:
            del self.kept[item.collection, item.filepath]
        patches = [name for name, (_, added) in self.histories.items() if added < before][: limit - len(old)]
        for name in patches:
            del self.histories[name]
        return len(old) + len(patches)

    def health(self) -> Health:
        if self.away:
            return Health(reads=False, writes=False, detail="away")
        return Health(reads=True, writes=not self.read_only, detail="read only" if self.read_only else "")

    def close(self) -> None:
        pass

    def _put(self, item: Item) -> Written:
        if item.filepath in self.refused:
            return Written(Verdict.REJECTED, self.refused[item.filepath])
        name = (item.collection, item.filepath)
        existing = self.kept.get(name)
        if existing is not None and existing.seq > item.seq and not self._is_late(item, existing):
            return Written(Verdict.SUPERSEDED)
        if isinstance(item, Patch):
            try:
                self._keep(item)
            except (ValueError, TypeError) as error:
                return Written(Verdict.REJECTED, str(error))
        elif existing is None or existing.seq < item.seq:
            self.kept[name] = item
            self.unpatched.pop(name, None)
        self._patch(*name)
        return Written(Verdict.STORED)

    def _is_late(self, item: Item, existing: Record | Tombstone) -> bool:
        """Return whether an image has replaced another one with its metadata, which the patch still changes."""
        if not isinstance(item, Patch) or not isinstance(existing, Record) or existing.metadata_seq is None:
            return False
        unpatched = self.unpatched.get((item.collection, item.filepath))
        return (existing.metadata_seq if unpatched is None else unpatched.seq) < item.seq

    def _keep(self, patch: Patch) -> None:
        name = (patch.collection, patch.filepath)
        history, _ = self.histories.get(name, (History(patch.seq), 0))
        record = self.kept.get(name)
        applied = (record.metadata_seq or record.seq) if isinstance(record, Record) else 0
        self.histories[name] = (history.add(patch.metadata, seq=patch.seq, applied=applied), patch.added)

    def _patch(self, collection: str, filepath: str) -> None:
        """Apply the patches of a filepath to its record."""
        record, (history, _) = (
            self.kept.get((collection, filepath)),
            self.histories.get((collection, filepath), (None, 0)),
        )
        if isinstance(record, Record) and history is not None:
            seq = record.seq if record.metadata_seq is None else record.metadata_seq
            unpatched = history.unpatched(self.unpatched.get((collection, filepath)), record.metadata, seq=seq)
            metadata, last = history.apply(unpatched)
            self.unpatched[collection, filepath] = unpatched
            changed = replace(record, metadata=metadata, metadata_seq=None if last == record.seq else last)
            self.kept[collection, filepath] = changed

    def _records(self, selection: Selection) -> list[Record]:
        needed = set(required_labels(selection.where))
        with self.lock:
            records = [
                item
                for item in self.kept.values()
                if isinstance(item, Record)
                and item.collection == selection.collection
                and item.filepath.startswith(selection.filepath_prefix)
                and needed <= labels(item.metadata)
            ]
        return sorted(records, key=lambda item: item.seq)

    def _words(self, item: Record | Tombstone) -> set[int]:
        if isinstance(item, Tombstone) or item.features is None:
            return set()
        return set(indexed_words(item.features).tolist())

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")
