"""Copies the index into a new one and puts that in its place, while the service reads and writes.

    name ──▶ name-1                     the source; everybody reads and writes it
    name ──▶ name-1   name-next ──▶ name-2      documents are copied in the order of their changes
    name ──▶ name-1   name-next ──▶ name-2      writes to name-1 are blocked for the last changes
    name ──▶ name-2   name-old ──▶ name-1       swapped in one step
    name ──▶ name-2                     the old index is gone

Where a run was ended, in whatever way, the aliases tell the next one; how far the copy went stands in the new index's
mapping.
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from time import sleep
from typing import Any

from elasticsearch import Elasticsearch

from common.errors import StoreError, StoreUnavailable
from common.store.base import Record, Tombstone, Verdict
from common.store.elastic import documents
from common.store.elastic.answers import our_errors
from common.store.elastic.bulk import bulk, written
from common.store.elastic.changes import Changes
from common.store.elastic.connection import require_elasticsearch
from common.store.elastic.mapping import LIVE, Shape, why_not_ours, why_unusable

# With metadata of 64 KiB each, 32 MiB of documents at once.
BATCH = 500
# Batches from one note of how far the copy went to the next: each is a change of the cluster's state.
BATCHES_A_NOTE = 20
# So few changes are copied in about a second: the time for which writes are held.
FEW = 2_000
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
# With these pauses, about a minute.
TRIES = 16
# A refresh of the new index builds the graphs of all that was written to it.
ANSWER_WITHIN_S = 300.0
# Searches that found the old index under the alias get so long to end.
GRACE_S = 5.0
# The marks of our own indices, in their mappings: an index without is never dropped.
NOTE = "match_copy"
REPLACED = "match_replaced_by"


class Copying:
    """One run, from the alias `name` to a new index in the form `shape`; run again, it goes on where it ended."""

    def __init__(  # noqa: PLR0913 - the options are named at every call
        self,
        client: Elasticsearch,
        name: str,
        *,
        shape: Shape,
        batch: int = BATCH,
        grace_s: float = GRACE_S,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._client = client.options(request_timeout=ANSWER_WITHIN_S)
        self._name = name
        self._next = f"{name}-next"
        self._old = f"{name}-old"
        self._shape = shape
        self._batch = batch
        self._grace_s = grace_s
        self._report = report
        # The newest run of a copy owns it.
        self._run = uuid.uuid4().hex
        self._source = self._source_uuid = ""
        self._changes = Changes(self._client, self._source)
        self._target = ""
        # The last change copied of each shard, by Elasticsearch's own count of them.
        self._done: dict[str, int] = {}
        self._superseded = 0
        self._copied = 0

    def run(self) -> int:
        """Return how many documents this run copied."""
        with our_errors():
            require_elasticsearch(self._client)
            if self._indices(self._old):
                self._report("an earlier run has taken over already")
                self._drop_old()
                return 0
            self._find_source()
            self._target = self._resume() or self._begin()
            self._follow()
            self._take_over()
            self._drop_old()
        return self._copied

    def _indices(self, name: str) -> dict[str, Any]:
        """Return the indices behind an alias, with all that Elasticsearch tells of them; none where there is none."""
        answer = self._client.indices.get(index=name, ignore_unavailable=True)
        return dict(answer.body)

    def _find_source(self) -> None:
        indices = self._indices(self._name)
        if not indices:
            message = f"there is no index {self._name}: the service makes one in its present form"
            raise StoreError(message)
        if reason := why_not_ours(self._name, indices):
            raise StoreError(reason)
        self._source, told = next(iter(indices.items()))
        # An index that was dropped and made again counts its changes anew.
        self._source_uuid = told["settings"]["index"]["uuid"]
        self._changes = Changes(self._client, self._source)

    def _resume(self) -> str:
        """Return the index that an earlier run began, or nothing; one that is of no use any more goes."""
        indices = self._indices(self._next)
        if not indices:
            return ""
        target, told = next(iter(indices.items()))
        note = told["mappings"].get("_meta", {}).get(NOTE)
        if why_not_ours(self._next, indices) or note is None:
            message = f"{self._next} stands for something that is not ours: nothing was changed"
            raise StoreError(message)
        if why_unusable(self._next, indices) or not self._form().items() <= note.items():
            self._report(f"{target} was begun from another index or in another form: it goes")
            self._client.indices.delete(index=target)
            return ""
        self._done, self._superseded = dict(note["done"]), note["superseded"]
        self._save()
        self._report(f"goes on copying {self._source} to {target}")
        return target

    def _begin(self) -> str:
        """Create the index after the last one."""
        there = self._client.indices.get_alias(index=f"{self._name}-*")
        numbers = [
            int(found[1]) for index in there if (found := re.fullmatch(rf"{re.escape(self._name)}-(\d+)", index))
        ]
        target = f"{self._name}-{max(numbers, default=0) + 1}"
        self._client.indices.create(
            index=target,
            aliases={self._next: {"is_write_index": True}},
            mappings=self._shape.mappings() | {"_meta": {NOTE: self._note()}},
            # Nobody searches it yet: fewer and larger segments are quicker.
            settings=self._shape.settings() | {"index.refresh_interval": "-1"},
        )
        self._report(f"copies {self._source} to {target}")
        return target

    def _form(self) -> dict[str, Any]:
        """Return what is copied into what: a copy of another kind cannot be taken up."""
        return {"source": self._source, "source_uuid": self._source_uuid, "shape": asdict(self._shape)}

    def _note(self) -> dict[str, Any]:
        return {**self._form(), "done": self._done, "superseded": self._superseded, "run": self._run}

    def _is_mine(self) -> bool:
        """Say whether no other run has taken the copy up, or ended it."""
        notes = [told["mappings"].get("_meta", {}).get(NOTE, {}) for told in self._indices(self._next).values()]
        return [note.get("run") for note in notes] == [self._run]

    def _require_mine(self) -> None:
        if not self._is_mine():
            raise StoreError("another run has taken this copy up")

    def _follow(self) -> None:
        """Copy what stands, then what has changed meanwhile, until little is left or writers are as quick as we are."""
        before, copied = None, self._copy(self._changes.checkpoints())
        while copied > FEW and (before is None or copied < before):
            before, copied = copied, self._copy(self._changes.checkpoints())

    def _copy(self, ends: Mapping[str, int]) -> int:
        """Copy the changes up to `ends` that are not copied yet; return how many documents that were."""
        self._changes.refresh()
        before, batches = self._copied, 0
        for shard, end in ends.items():
            while found := self._changes.after(shard, self._done.get(shard, -1), upto=end, limit=self._batch):
                self._write([documents.item(hit) for hit in found])
                self._done[shard] = found[-1]["sort"][0]
                self._copied += len(found)
                batches += 1
                if batches % BATCHES_A_NOTE == 0:
                    self._note_progress()
            self._done[shard] = max(self._done.get(shard, -1), end)
        self._note_progress()
        return self._copied - before

    def _write(self, items: Sequence[Record | Tombstone]) -> None:
        """Write all; what the new index cannot take now is tried again, what it will never take ends the run."""
        pause = FIRST_PAUSE_S
        left = list(items)
        for _ in range(TRIES):
            results = bulk(self._client, self._next, [documents.lines(item) for item in left])
            outcomes = [(item, written(result)) for item, result in zip(left, results, strict=True)]
            for item, outcome in outcomes:
                if outcome.verdict is Verdict.REJECTED:
                    message = f"{item.filepath} cannot be copied: {outcome.reason}"
                    raise StoreError(message)
                # Something newer was copied before, a deletion that the source has purged since.
                self._superseded += outcome.verdict is Verdict.SUPERSEDED
            left = [item for item, outcome in outcomes if outcome.verdict is Verdict.HELD]
            if not left:
                return
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise StoreUnavailable("the new index takes no writes")

    def _note_progress(self) -> None:
        self._require_mine()
        self._save()
        self._report(f"copied {self._copied} documents")

    def _save(self) -> None:
        self._client.indices.put_mapping(index=self._next, meta={NOTE: self._note()})

    def _take_over(self) -> None:
        """Hold writes, copy the last changes, and swap."""
        self._client.indices.put_settings(
            index=self._target, settings={"index.refresh_interval": self._shape.refresh_interval}
        )
        self._client.cluster.health(index=self._target, wait_for_status="yellow", wait_for_no_initializing_shards=True)
        self._client.indices.refresh(index=self._target)
        self._require_mine()
        # Returns when all writes that had begun have ended. From here on they are answered 403, which holds them.
        self._client.indices.add_block(index=self._source, block="write")
        try:
            self._report("writes are held for the last changes")
            self._copy(self._changes.last())
            self._compare()
            self._require_mine()
        except BaseException:
            # Another run may count on the block.
            if self._is_mine():
                self._client.indices.put_settings(index=self._source, settings={"index.blocks.write": None})
            raise
        # Should its answer be lost, the block has to stay: a write to the source now might be the source's last.
        self._swap()
        self._report(f"{self._name} is {self._target} now")

    def _compare(self) -> None:
        """Make sure that no picture is missing."""
        self._client.indices.refresh(index=self._target)
        there, copied = (self._client.count(index=index, query=LIVE)["count"] for index in (self._source, self._target))
        if not 0 <= there - copied <= self._superseded:
            message = f"{self._source} has {there} pictures, {self._target} {copied}: nothing was swapped"
            raise StoreError(message)

    def _swap(self) -> None:
        self._client.indices.put_mapping(index=self._source, meta={REPLACED: self._target})
        self._client.indices.update_aliases(
            actions=[
                {"remove": {"index": self._source, "alias": self._name, "must_exist": True}},
                {"add": {"index": self._target, "alias": self._name, "is_write_index": True}},
                {"remove": {"index": self._target, "alias": self._next, "must_exist": True}},
                {"add": {"index": self._source, "alias": self._old}},
            ]
        )

    def _drop_old(self) -> None:
        old, now = self._indices(self._old), self._indices(self._name)
        replaced_by = [told["mappings"].get("_meta", {}).get(REPLACED) for told in old.values()]
        if why_not_ours(self._old, old) or replaced_by != list(now):
            message = f"{self._old} stands for something that is not ours: nothing was changed"
            raise StoreError(message)
        sleep(self._grace_s)
        self._client.indices.delete(index=list(old))
        self._report(f"dropped {', '.join(old)}")
