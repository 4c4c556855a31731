"""Reindexing: copies the index into a new one and swaps them, while the service reads and writes.

    name ──▶ name-1                     the source; the service reads and writes it
    name ──▶ name-1   name-next ──▶ name-2      documents are copied in the order of their changes
    name ──▶ name-1   name-next ──▶ name-2      writes to name-1 are blocked for the last changes
    name ──▶ name-2   name-old ──▶ name-1       swapped in one step
    name ──▶ name-2                     the old index is deleted

A later run resumes an interrupted one: the aliases show its step, and the new index's mapping contains the progress of
the copy.
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from time import sleep
from typing import Any

from common.errors import StoreError, StoreUnavailable
from common.store.base import Verdict
from common.store.elastic import documents
from common.store.elastic.bulk import bulk, written
from common.store.elastic.catalogue import copy_lines, is_entry
from common.store.elastic.changes import Changes
from common.store.elastic.cluster import Cluster
from common.store.elastic.dialects import Dialect, Json
from common.store.elastic.mapping import LIVE, Shape, why_foreign, why_unusable
from common.store.patches import unpatched_of

# With metadata of 64 KiB each, 32 MiB of documents in one request.
BATCH = 500
# Batches per note of the progress: each note is an update of the cluster state.
BATCHES_PER_NOTE = 20
# These are copied in about a second, the time for which writes are blocked.
FEW = 2_000
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
# About a minute with these pauses.
TRIES = 16
# A refresh of the new index builds the graphs of all its vectors.
REQUEST_TIMEOUT_S = 300.0
# Time for searches that resolved the alias to the old index.
GRACE_S = 5.0
# Keys in the mappings of our own indices: an index without them is never deleted.
NOTE = "match_copy"
REPLACED = "match_replaced_by"


class Copying:
    """One run, from the alias `name` to a new index with the settings of `shape`; it resumes an earlier one."""

    def __init__(  # noqa: PLR0913 - the options are keyword arguments
        self,
        cluster: Cluster,
        name: str,
        *,
        shape: Shape,
        batch: int = BATCH,
        grace_s: float = GRACE_S,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._cluster = cluster.within(REQUEST_TIMEOUT_S)
        self._name = name
        self._next = f"{name}-next"
        self._old = f"{name}-old"
        self._shape = shape
        self._batch = batch
        self._grace_s = grace_s
        self._report = report
        # The latest run of a copy owns it.
        self._run = uuid.uuid4().hex
        self._source = self._source_uuid = ""
        self._changes = Changes(self._cluster, self._source)
        self._target = ""
        # The `_seq_no` of the last change copied of each shard.
        self._done: dict[str, int] = {}
        self._superseded = 0
        self._copied = 0

    def run(self) -> int:
        """Run, and return the number of documents copied."""
        if self._indices(self._old):
            self._report("an earlier run has swapped the indices already")
            self._delete_old()
            return 0
        self._find_source()
        self._target = self._resume() or self._begin()
        self._follow()
        self._switch()
        self._delete_old()
        return self._copied

    def _indices(self, name: str) -> dict[str, Any]:
        """Return the indices behind an alias with their details; empty if there is no index."""
        return dict(self._cluster.get(f"/{name}", ignore_unavailable="true"))

    def _find_source(self) -> None:
        indices = self._indices(self._name)
        if not indices:
            message = f"there is no index {self._name}: the service creates one with the current settings"
            raise StoreError(message)
        if reason := why_foreign(self._name, indices):
            raise StoreError(reason)
        self._source, details = next(iter(indices.items()))
        # The _seq_no of an index that was deleted and created again starts from 0.
        self._source_uuid = details["settings"]["index"]["uuid"]
        self._changes = Changes(self._cluster, self._source)

    def _resume(self) -> str:
        """Return the index that an earlier run began, or ""; an incompatible one is deleted."""
        indices = self._indices(self._next)
        if not indices:
            return ""
        target, details = next(iter(indices.items()))
        note = details["mappings"].get("_meta", {}).get(NOTE)
        if why_foreign(self._next, indices) or note is None:
            message = f"{self._next} is not an alias of Match: nothing was changed"
            raise StoreError(message)
        if why_unusable(self._next, indices, self._cluster.dialect) or not self._form().items() <= note.items():
            self._report(f"deletes {target}: it is a copy of another index, or with other settings")
            self._cluster.delete(f"/{target}")
            return ""
        self._done, self._superseded = dict(note["done"]), note["superseded"]
        self._save()
        self._report(f"resumes the copy of {self._source} to {target}")
        return target

    def _begin(self) -> str:
        """Create the index after the last one."""
        existing = self._cluster.get(f"/{self._name}-*/_alias")
        pattern = re.compile(rf"{re.escape(self._name)}-(\d+)")
        numbers = [int(match[1]) for index in existing if (match := pattern.fullmatch(index))]
        target = f"{self._name}-{max(numbers, default=0) + 1}"
        dialect = self._cluster.dialect
        body = {
            "aliases": {self._next: {"is_write_index": True}},
            "mappings": self._shape.mappings(dialect) | {"_meta": {NOTE: self._note()}},
            # No refresh during the copy, which has no searches: fewer and larger segments are faster.
            "settings": self._shape.settings(dialect) | {"index.refresh_interval": "-1"},
        }
        self._cluster.put(f"/{target}", body)
        self._report(f"copies {self._source} to {target}")
        return target

    def _form(self) -> dict[str, Any]:
        """Return source and shape: a copy of another source or shape cannot be resumed."""
        return {"source": self._source, "source_uuid": self._source_uuid, "shape": asdict(self._shape)}

    def _note(self) -> dict[str, Any]:
        return {**self._form(), "done": self._done, "superseded": self._superseded, "run": self._run}

    def _is_mine(self) -> bool:
        """Return whether this run owns the copy: no other has resumed or finished it."""
        notes = [details["mappings"].get("_meta", {}).get(NOTE, {}) for details in self._indices(self._next).values()]
        return [note.get("run") for note in notes] == [self._run]

    def _require_mine(self) -> None:
        if not self._is_mine():
            raise StoreError("another run has resumed this copy")

    def _follow(self) -> None:
        """Copy all documents, then later changes, until few are left or writers are as fast as the copy."""
        before, copied = None, self._copy(self._changes.checkpoints())
        while copied > FEW and (before is None or copied < before):
            before, copied = copied, self._copy(self._changes.checkpoints())

    def _copy(self, ends: Mapping[str, int]) -> int:
        """Copy the changes up to `ends` that are not copied yet; return the number of documents."""
        self._changes.refresh()
        before, batches = self._copied, 0
        for shard, end in ends.items():
            while matches := self._changes.after(shard, self._done.get(shard, -1), upto=end, limit=self._batch):
                self._write([_lines(hit, self._cluster.dialect) for hit in matches])
                self._done[shard] = matches[-1]["sort"][0]
                self._copied += len(matches)
                batches += 1
                if batches % BATCHES_PER_NOTE == 0:
                    self._note_progress()
            self._done[shard] = max(self._done.get(shard, -1), end)
        self._note_progress()
        return self._copied - before

    def _write(self, lines: Sequence[str]) -> None:
        """Write all documents, with retries. Raises StoreError if the new index rejects one."""
        pause = FIRST_PAUSE_S
        left = list(lines)
        for _ in range(TRIES):
            results = list(bulk(self._cluster, self._next, left))
            outcomes = [(line, written(result)) for line, result in zip(left, results, strict=True)]
            for result, (_, outcome) in zip(results, outcomes, strict=True):
                if outcome.verdict is Verdict.REJECTED:
                    message = f"the document {result['_id']} cannot be copied: {outcome.reason}"
                    raise StoreError(message)
                # A newer deletion was copied before, and the source has purged it since.
                self._superseded += outcome.verdict is Verdict.SUPERSEDED
            left = [line for line, outcome in outcomes if outcome.verdict is Verdict.RETRY]
            if not left:
                return
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise StoreUnavailable("the new index accepts no writes")

    def _note_progress(self) -> None:
        self._require_mine()
        self._save()
        self._report(f"copied {self._copied} documents")

    def _save(self) -> None:
        self._cluster.put(f"/{self._next}/_mapping", {"_meta": {NOTE: self._note()}})

    def _switch(self) -> None:
        """Block writes, copy the last changes, and swap."""
        self._cluster.put(f"/{self._target}/_settings", {"index.refresh_interval": self._shape.refresh_interval})
        self._cluster.get(
            f"/_cluster/health/{self._target}", wait_for_status="yellow", wait_for_no_initializing_shards="true"
        )
        self._cluster.post(f"/{self._target}/_refresh")
        self._require_mine()
        # Returns when all running writes have finished. Later writes get a 403, and workers retry them.
        self._cluster.put(f"/{self._source}/_block/write")
        try:
            self._report("blocks writes for the last changes")
            self._copy(self._changes.last())
            self._compare()
            self._require_mine()
        except BaseException:
            # Another run may depend on the block.
            if self._is_mine():
                self._cluster.put(f"/{self._source}/_settings", {"index.blocks.write": None})
            raise
        # The block stays if the response is lost: the swap may have happened, and a write to the source would be lost.
        self._swap()
        self._report(f"{self._name} is {self._target} now")

    def _compare(self) -> None:
        """Raise StoreError if the copy lacks an image."""
        self._cluster.post(f"/{self._target}/_refresh")
        expected, copied = (
            self._cluster.post(f"/{index}/_count", {"query": LIVE})["count"] for index in (self._source, self._target)
        )
        if not 0 <= expected - copied <= self._superseded:
            message = f"{self._source} has {expected} images, {self._target} {copied}: nothing was swapped"
            raise StoreError(message)

    def _swap(self) -> None:
        self._cluster.put(f"/{self._source}/_mapping", {"_meta": {REPLACED: self._target}})
        actions = [
            {"remove": {"index": self._source, "alias": self._name, "must_exist": True}},
            {"add": {"index": self._target, "alias": self._name, "is_write_index": True}},
            {"remove": {"index": self._target, "alias": self._next, "must_exist": True}},
            {"add": {"index": self._source, "alias": self._old}},
        ]
        self._cluster.post("/_aliases", {"actions": actions})

    def _delete_old(self) -> None:
        old, now = self._indices(self._old), self._indices(self._name)
        replaced_by = [details["mappings"].get("_meta", {}).get(REPLACED) for details in old.values()]
        if why_foreign(self._old, old) or replaced_by != list(now):
            message = f"{self._old} is not an alias of Match: nothing was changed"
            raise StoreError(message)
        sleep(self._grace_s)
        self._cluster.delete(f"/{','.join(old)}")
        self._report(f"deleted {', '.join(old)}")


def _lines(hit: Json, dialect: Dialect) -> str:
    """Return the lines of a bulk request that copies a document."""
    if is_entry(hit["_source"]):
        return copy_lines(hit["_id"], hit["_source"])
    if documents.is_history(hit["_source"]):
        return documents.copy_of_history(hit["_id"], hit["_source"])
    unpatched = unpatched_of(hit["_source"].get("unpatched"))
    return documents.lines(documents.item(hit), dialect, unpatched=unpatched)
