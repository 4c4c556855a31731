"""The mapping and settings of our index, and the check of an existing index against them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from common.images.signature import LENGTH

# The mapping has one vector field for each of a record's signatures; an empty field adds no time to a search.
SIGNATURES_MAX = 2
VECTORS = tuple(f"bits_{number}" for number in range(SIGNATURES_MAX))
# The query for records: tombstones are documents too.
LIVE: Final = {"term": {"deleted": False}}
# Links of a vector in the graph, and the number of candidates considered for them.
HNSW_M = 16
HNSW_EF_CONSTRUCTION = 60

_Json = Mapping[str, Any]

_VECTOR: Final[_Json] = {"type": "dense_vector", "element_type": "bit", "dims": 2 * LENGTH, "index": True}
_VECTOR_INDEX: Final = {
    "hnsw": {"type": "hnsw", "m": HNSW_M, "ef_construction": HNSW_EF_CONSTRUCTION},
    "flat": {"type": "flat"},
}
# An index with these fields is one of Match, of any version.
_CORE: Final[dict[str, _Json]] = {
    # Lookups are by _id: this field is read, not searched.
    "path": {"type": "keyword", "index": False},
    "seq": {"type": "long"},
    "deleted": {"type": "boolean"},
    "added": {"type": "long", "index": False},
    "sig": {"type": "binary", "doc_values": True},
}
_FIELDS: Final[dict[str, _Json]] = {
    **_CORE,
    "width": {"type": "integer", "index": False, "doc_values": False},
    "height": {"type": "integer", "index": False, "doc_values": False},
    # Stored unchanged and not indexed.
    "metadata": {"type": "object", "enabled": False},
    # One field for any number of keys. For metadata of 200 bytes it takes 140 bytes, `flattened` 250.
    "labels": {"type": "keyword", "doc_values": False},
    **dict.fromkeys(VECTORS, _VECTOR),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The variable settings of a new index; an existing one keeps its own until it is reindexed."""

    shards: int = 1
    # A number, or a range for `auto_expand_replicas`.
    replicas: str = "0-1"
    refresh_interval_s: float = 1.0
    vectors: Literal["hnsw", "flat"] = "hnsw"

    def mappings(self) -> dict[str, Any]:
        """Return the mapping."""
        vector = {**_VECTOR, "index_options": _VECTOR_INDEX[self.vectors]}
        return {
            "dynamic": "strict",
            # These are read from doc values or the vector index, or derived from the metadata.
            "_source": {"excludes": ["sig", "labels", *VECTORS]},
            "properties": {**_FIELDS, **dict.fromkeys(VECTORS, vector)},
        }

    def settings(self) -> dict[str, Any]:
        """Return the settings."""
        expands = "-" in self.replicas
        return {
            "index.number_of_shards": self.shards,
            ("index.auto_expand_replicas" if expands else "index.number_of_replicas"): self.replicas,
            "index.refresh_interval": self.refresh_interval,
        }

    @property
    def refresh_interval(self) -> str:
        """Return the interval. It is explicit: with the default, a shard without searches stops refreshing."""
        return f"{round(self.refresh_interval_s * 1000)}ms"


def why_unusable(name: str, indices: _Json) -> str:
    """Return the reason why the index `name` cannot be used, or ""; `indices` is the result of GET /name."""
    if reason := why_foreign(name, indices):
        return reason
    ((index, details),) = indices.items()
    if wrong := _wrong(details, _FIELDS):
        return f"the index {index} is incompatible with this version of Match ({', '.join(wrong)}): run `make reindex`"
    return ""


def why_foreign(name: str, indices: _Json) -> str:
    """Return the reason why `name` is not an index of any version of Match, in one line, or ""."""
    elsewhere = "nothing was changed; ELASTICSEARCH_INDEX can name another"
    if not all(name in details["aliases"] for details in indices.values()):
        return f"Elasticsearch has an index named {name} that is not an alias of Match: {elsewhere}"
    if len(indices) > 1:
        return f"the alias {name} has several indices ({', '.join(sorted(indices))}): {elsewhere}"
    ((index, details),) = indices.items()
    if _wrong(details, _CORE):
        return f"the alias {name} is of {index}, which is not an index of images: {elsewhere}"
    return ""


def _wrong(details: _Json, fields: Mapping[str, _Json]) -> list[str]:
    """Return the fields that are missing in the index's mapping, or different.

    >>> _wrong({"mappings": {"properties": {"a": {"type": "text"}}}}, {"a": {"type": "long"}, "b": {"type": "long"}})
    ['a is text', 'b is missing']
    """
    existing = details["mappings"].get("properties", {})
    return [
        f"{field} is {existing[field].get('type', 'an object')}" if field in existing else f"{field} is missing"
        for field, required in fields.items()
        if not _fits(existing.get(field), required)
    ]


def _fits(existing: _Json | None, required: _Json) -> bool:
    # Elasticsearch omits the type of an object.
    return existing is not None and required.items() <= {"type": "object", **existing}.items()
