"""The catalogue of collections: entries are documents of the index that no search of images reads.

An entry is not a record, so it lacks the field `deleted` that every query for images requires. Its deletion is a
document too, so that a copy of the index does not restore it, and is purged like a tombstone.
"""

import json
import time
from collections.abc import Sequence
from typing import Any, Final

from common.errors import StoreError, StoreUnavailable
from common.store.base import DEFAULT_COLLECTION, Collection, Verdict
from common.store.elastic.bulk import bulk, written
from common.store.elastic.dialects import Json
from common.store.elastic.index import Index
from common.store.elastic.mapping import LIVE, in_collection
from common.store.elastic.responses import PARTIAL, hits, is_whole

# The server rejects more buckets in one response.
COLLECTIONS_MAX = 65_535
PAGE = 10_000
_ENTRIES: Final = {"bool": {"filter": [{"exists": {"field": "entry"}}], "must_not": [{"term": {"deleted": True}}]}}


class Catalogue:
    """The catalogue in the index."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def collections(self) -> list[Collection]:
        """Return all collections of the last refresh."""
        counts, quotas = self._counts(), self._quotas()
        return [
            Collection(name=name, images=counts.get(name, 0), max_images=quotas.get(name))
            for name in sorted({DEFAULT_COLLECTION, *counts, *quotas})
        ]

    def collection(self, name: str) -> Collection | None:
        """Return one collection: its latest entry, and the count of the last refresh."""
        entry = self._source(name)
        images = self.count([LIVE, in_collection(name)])
        if name != DEFAULT_COLLECTION and not images and not _is_listed(entry):
            return None
        return Collection(name=name, images=images, max_images=entry.get("max_images"))

    def create(self, name: str) -> None:
        """Add an entry, unless there is one; if another process adds or changes it meanwhile, its entry is kept."""
        document = self._document(name)
        if not document["found"]:
            self._write({"create": {"_id": _identity(name)}}, {"entry": name})
        elif not _is_listed(document["_source"]):
            latest = {"if_seq_no": document["_seq_no"], "if_primary_term": document["_primary_term"]}
            self._write({"index": {"_id": _identity(name), **latest}}, {"entry": name})

    def put(self, name: str, *, max_images: int | None) -> None:
        """Add or replace an entry."""
        quota = {} if max_images is None else {"max_images": max_images}
        self._write({"index": {"_id": _identity(name)}}, {"entry": name, **quota})

    def delete(self, name: str) -> bool:
        """Delete the entry of a collection without images, and return whether it was one."""
        if self.count([LIVE, in_collection(name)]):
            return False
        if _is_listed(self._source(name)):
            deletion = {"entry": name, "deleted": True, "added": time.time_ns() // 1_000_000}
            self._write({"index": {"_id": _identity(name)}}, deletion)
        return True

    def count(self, filters: Sequence[Json]) -> int:
        """Return the number of documents that pass the filters."""
        query = {"query": {"bool": {"filter": filters}}}
        response = self._index.cluster().post(f"/{self._index.name}/_count", query)
        if not is_whole(response):
            raise StoreUnavailable(PARTIAL)
        return int(response["count"])

    def _counts(self) -> dict[str, int]:
        terms = {"field": "collection", "size": COLLECTIONS_MAX}
        others = {"query": LIVE, "size": 0, "aggs": {"images": {"terms": terms}}}
        response = self._index.cluster().post(f"/{self._index.name}/_search", others)
        hits(response)
        counts = {bucket["key"]: bucket["doc_count"] for bucket in response["aggregations"]["images"]["buckets"]}
        return {DEFAULT_COLLECTION: self.count([LIVE, in_collection(DEFAULT_COLLECTION)]), **counts}

    def _quotas(self) -> dict[str, int | None]:
        """Return all entries of the last refresh."""
        quotas: dict[str, int | None] = {}
        search: dict[str, Any] = {"query": _ENTRIES, "sort": [{"entry": {"unmapped_type": "keyword"}}], "size": PAGE}
        while True:
            page = hits(self._index.cluster().post(f"/{self._index.name}/_search", search))
            quotas |= {hit["_source"]["entry"]: hit["_source"].get("max_images") for hit in page}
            if len(page) < PAGE:
                return quotas
            search["search_after"] = page[-1]["sort"]

    def _source(self, name: str) -> Json:
        """Return the latest document of an entry or its deletion; empty if there is neither."""
        source: Json = self._document(name).get("_source", {})
        return source

    def _document(self, name: str) -> Json:
        (document,) = self._index.cluster().documents(self._index.name, [_identity(name)])
        return document

    def _write(self, action: Json, document: Json) -> None:
        lines = f"{json.dumps(action)}\n{json.dumps(document)}\n"
        (result,) = bulk(self._index.complete(), self._index.name, [lines])
        outcome = written(result)
        if outcome.verdict is Verdict.RETRY:
            raise StoreUnavailable(outcome.reason)
        if outcome.verdict is Verdict.REJECTED:
            raise StoreError(outcome.reason)


def is_entry(source: Json) -> bool:
    """Return whether a document belongs to the catalogue."""
    return "entry" in source


def copy_lines(document_id: str, source: Json) -> str:
    """Return the lines of a bulk request that copies an entry or its deletion."""
    return f"{json.dumps({'index': {'_id': document_id}})}\n{json.dumps(source)}\n"


def _identity(name: str) -> str:
    # No name of a collection begins like this, so it is not the `_id` of an image.
    return f"@{name}"


def _is_listed(source: Json) -> bool:
    return is_entry(source) and not source.get("deleted")
