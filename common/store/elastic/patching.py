"""Patches of metadata: a record is read, changed and written again, unless another request wrote it meanwhile.

The history of a filepath is a document of its own, so that a record that is stored later finds it. Every writer of a
record reads the history after its write, and every patch extends the history before it reads the record. The later of
both sees the other. A conditional write raises a document's version above the sequence number
of its image by one, so a version conflict is resolved by the document's content.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from common.errors import StoreError, StoreUnavailable
from common.store.base import Patch, Record, Tombstone, Verdict, Written
from common.store.elastic import documents
from common.store.elastic.bulk import bulk, condition, written
from common.store.elastic.dialects import Json
from common.store.elastic.index import Index
from common.store.elastic.parts import parts
from common.store.elastic.responses import hits, reason
from common.store.patches import History, Unpatched, history_of, unpatched_of

# Attempts at a document that others write at the same time. Each attempt fails only if another write succeeded.
TRIES = 20
BUSY = "too many requests change the same image at once"
IDS_PER_REQUEST = 1_000


class Patching:
    """Conditional writes of the index; `refresh` makes earlier writes visible to searches."""

    def __init__(self, index: Index, *, refresh: Callable[[], None]) -> None:
        self._index = index
        self._refresh = refresh

    def patch(self, patch: Patch) -> Written:
        """Add a patch to the history of its filepath, and apply it to the record if one is stored."""
        [existing] = self._documents([documents.identity(patch.filepath, patch.collection)])
        source = existing.get("_source", {})
        obsolete = _obsolete(source)
        # An image that replaces another one with its metadata has the lower number in `metadata_seq`.
        if min(source.get("seq", 0), obsolete) > patch.seq:
            return Written(Verdict.SUPERSEDED)
        try:
            applied = 0 if source.get("deleted", True) else int(source.get("metadata_seq", source["seq"]))
            self._extend(patch, obsolete=obsolete, applied=applied)
            self._apply(patch.filepath, patch.collection)
        except StoreUnavailable:
            raise
        except (ValueError, TypeError, RecursionError, StoreError) as error:
            return Written(Verdict.REJECTED, f"cannot be stored: {error}")
        return Written(Verdict.STORED)

    def apply(self, records: Sequence[Record]) -> list[Written]:
        """Apply the histories of the filepaths of these records, which are stored now, and return their outcomes."""
        outcomes: list[Written] = []
        for some in parts(records, IDS_PER_REQUEST):
            ids = [documents.history_identity(record.filepath, record.collection) for record in some]
            try:
                histories = self._index.cluster().documents_or_errors(self._index.name, ids, _source="false")
            except StoreUnavailable as error:
                outcomes += [Written(Verdict.RETRY, str(error))] * len(some)
                continue
            outcomes += [self._applied(record, history) for record, history in zip(some, histories, strict=True)]
        return outcomes

    def _applied(self, record: Record, history: Json) -> Written:
        if "error" in history:
            # Only the records of this shard wait.
            return Written(Verdict.RETRY, reason(history["error"]))
        return self._try_to_apply(record) if history["found"] else Written(Verdict.STORED)

    def resolve(self, items: Sequence[Record | Tombstone]) -> list[Written]:
        """Return the outcomes of items whose writes were version conflicts; an item that is newer is written."""
        outcomes: list[Written] = []
        for some in parts(items, IDS_PER_REQUEST):
            try:
                existing = self._documents([documents.identity(item.filepath, item.collection) for item in some])
                outcomes += [self._replace(item, document) for item, document in zip(some, existing, strict=True)]
            except StoreUnavailable as error:
                outcomes += [Written(Verdict.RETRY, str(error))] * (len(items) - len(outcomes))
                break
        return outcomes

    def _replace(self, item: Record | Tombstone, existing: Json) -> Written:
        """Write an item over an older one, whose document has a higher version."""
        for _ in range(TRIES):
            if not existing["found"]:
                return Written(Verdict.RETRY, "the document was purged meanwhile")
            seq = existing["_source"]["seq"]
            if seq >= item.seq:
                return Written(Verdict.STORED if seq == item.seq else Verdict.SUPERSEDED)
            outcome = self._write(item, existing)
            if outcome.verdict is not Verdict.SUPERSEDED:
                return outcome
            [existing] = self._documents([existing["_id"]])
        return Written(Verdict.RETRY, BUSY)

    def _try_to_apply(self, record: Record) -> Written:
        try:
            self._apply(record.filepath, record.collection)
        except StoreUnavailable as error:
            return Written(Verdict.RETRY, str(error))
        except StoreError as error:
            return Written(Verdict.REJECTED, str(error))
        return Written(Verdict.STORED)

    def _extend(self, patch: Patch, *, obsolete: int, applied: int) -> None:
        document_id = documents.history_identity(patch.filepath, patch.collection)
        for _ in range(TRIES):
            [existing] = self._documents([document_id])
            history = _history(existing)
            extended = (history or History(patch.seq)).add(
                patch.metadata, seq=patch.seq, obsolete=obsolete, applied=applied
            )
            if extended == history:
                return
            line = documents.history_line(extended, added=patch.added)
            outcome = self._send(f"{condition(document_id, existing)}\n{line}\n")
            if outcome.verdict is Verdict.STORED:
                return
            _check(outcome)
        raise StoreUnavailable(BUSY)

    def _apply(self, filepath: str, collection: str) -> None:
        """Write the record with the patches of its history, unless it has them."""
        for _ in range(TRIES):
            # The record is read before the history: a patch that is not in the history yet writes the record later,
            # and then the write below is a conflict.
            hit = self._current(documents.identity(filepath, collection))
            [document] = self._documents([documents.history_identity(filepath, collection)])
            history = _history(document)
            if hit is None or history is None:
                return
            record = documents.item(hit)
            if isinstance(record, Tombstone):
                return
            unpatched, patched = _patched(record, unpatched_of(hit["_source"].get("unpatched")), history)
            if _is_same(patched, record):
                return
            outcome = self._write(patched, hit, unpatched)
            if outcome.verdict is Verdict.STORED:
                return
            _check(outcome)
        raise StoreUnavailable(BUSY)

    def _write(self, item: Record | Tombstone, existing: Json, unpatched: Unpatched | None = None) -> Written:
        """Write an item unless the document has changed since it was read as `existing`."""
        action = condition(existing["_id"], existing)
        return self._send(documents.lines(item, self._index.cluster().dialect, action=action, unpatched=unpatched))

    def _send(self, lines: str) -> Written:
        [result] = bulk(self._index.cluster(), self._index.name, [lines])
        return written(result)

    def _documents(self, ids: Sequence[str]) -> list[Json]:
        """Return the current documents, also those that are not refreshed yet."""
        source = "seq,deleted,metadata_seq,unpatched,patches"
        return self._index.cluster().documents(self._index.name, ids, _source=source)

    def _current(self, document_id: str) -> Json | None:
        """Return the current document as a hit with all fields; None without an image."""
        [latest] = self._documents([document_id])
        if not latest["found"] or latest["_source"]["deleted"]:
            return None
        hit = self._hit(document_id)
        if hit is None or hit["_seq_no"] != latest["_seq_no"]:
            self._refresh()
            hit = self._hit(document_id)
        return hit

    def _hit(self, document_id: str) -> Json | None:
        search: dict[str, Any] = {
            "query": {"ids": {"values": [document_id]}},
            "_source": True,
            "docvalue_fields": documents.BINARY,
            "seq_no_primary_term": True,
            "track_total_hits": False,
        }
        matches = hits(self._index.cluster().post(f"/{self._index.name}/_search", search))
        return matches[0] if matches else None


def _patched(record: Record, existing: Unpatched | None, history: History) -> tuple[Unpatched, Record]:
    unpatched = history.unpatched(existing, record.metadata, seq=record.last_metadata_seq)
    metadata, seq = history.apply(unpatched)
    return unpatched, record.with_metadata(metadata, seq=seq)


def _is_same(patched: Record, record: Record) -> bool:
    # Not by ==, by which 1 is true.
    metadata, existing = (json.dumps(one.metadata, sort_keys=True) for one in (patched, record))
    return metadata == existing and patched.metadata_seq == record.metadata_seq


def _obsolete(source: Json) -> int:
    """Return the sequence number up to which patches have no effect any more."""
    if (unpatched := unpatched_of(source.get("unpatched"))) is not None:
        return unpatched.seq
    return int(source.get("metadata_seq", source.get("seq", 0)))


def _history(document: Json) -> History | None:
    return history_of(document["_source"]["patches"]) if document["found"] else None


def _check(outcome: Written) -> None:
    """Raise the error of a write, unless it was a conflict."""
    if outcome.verdict is Verdict.RETRY:
        raise StoreUnavailable(outcome.reason)
    if outcome.verdict is Verdict.REJECTED:
        raise StoreError(outcome.reason)
