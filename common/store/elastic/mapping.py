"""The mapping and settings of our index, and the check of an existing index against them."""

from dataclasses import dataclass
from typing import Any, Final

from common.store.base import DEFAULT_COLLECTION
from common.store.elastic.dialects import Dialect, Json, Vectors

# The mapping has one vector field for each of a record's signatures; an empty field adds no time to a search.
SIGNATURES_MAX = 2
VECTORS = tuple(f"bits_{number}" for number in range(SIGNATURES_MAX))
# The query for records: tombstones are documents too.
LIVE: Final = {"term": {"deleted": False}}
_IN_DEFAULT: Final = {"bool": {"must_not": {"exists": {"field": "collection"}}}}

# All fields except the vectors, whose mapping depends on the dialect.
_FIELDS: Final[dict[str, Json]] = {
    # Documents of the default collection lack it, as those of earlier versions.
    "collection": {"type": "keyword"},
    # Lookups are by _id. A search by prefix compares doc values.
    "path": {"type": "keyword", "index": False},
    "seq": {"type": "long"},
    "deleted": {"type": "boolean"},
    "added": {"type": "long", "index": False},
    "sig": {"type": "binary", "doc_values": True},
    "width": {"type": "integer", "index": False, "doc_values": False},
    "height": {"type": "integer", "index": False, "doc_values": False},
    # Indexed for exact duplicates. It is in hexadecimal digits.
    "sha256": {"type": "keyword", "doc_values": False},
    "url": {"type": "keyword", "index": False, "doc_values": False},
    "features": {"type": "binary", "doc_values": True},
    # Without norms and frequencies, BM25 is the sum of idf times a constant.
    "words": {"type": "text", "analyzer": "whitespace", "norms": False, "index_options": "docs"},
    # Stored unchanged and not indexed.
    "metadata": {"type": "object", "enabled": False},
    "metadata_seq": {"type": "long", "index": False, "doc_values": False},
    # Of a patched record, its metadata before the patches; of a history, the patches of a filepath.
    "unpatched": {"type": "object", "enabled": False},
    "patches": {"type": "object", "enabled": False},
    # One field for any number of keys. For metadata of 200 bytes it takes 140 bytes, `flattened` 250.
    "labels": {"type": "keyword", "doc_values": False},
    # Entries of the catalogue of collections: the collection's name and quota.
    "entry": {"type": "keyword"},
    "max_images": {"type": "long", "index": False, "doc_values": False},
}
# An index with these fields is one of Match, of any version.
_IDENTIFYING: Final = ("path", "seq", "deleted", "added", "sig")
# These are added to an index that lacks them: its documents are complete without. Any other field needs a reindex.
_ADDABLE: Final = (
    "sha256",
    "url",
    "features",
    "words",
    "collection",
    "entry",
    "max_images",
    "metadata_seq",
    "unpatched",
    "patches",
    *VECTORS[1:],
)
# Each segment has a graph of its own, and a search walks them all: few are faster. But Lucene merges graphs with half
# of the candidates. One merged to a million vectors missed .006 of the pairs with 1,500 candidates. Without local
# features 256 MB are some 370,000 vectors.
MERGES: Final = {
    "index.merge.policy.segments_per_tier": "4",
    "index.merge.policy.floor_segment": "32mb",
    "index.merge.policy.max_merged_segment": "256mb",
}
# These are read from doc values or the vector index, or derived from others.
_NOT_IN_SOURCE: Final = ("sig", "features", "words", "labels", *VECTORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The variable settings of a new index; an existing one keeps its own until it is reindexed."""

    shards: int = 1
    # A number, or a range for `auto_expand_replicas`.
    replicas: str = "0-1"
    refresh_interval_s: float = 1.0
    vectors: Vectors = "hnsw"

    def mappings(self, dialect: Dialect) -> dict[str, Any]:
        """Return the mapping."""
        return {
            "dynamic": "strict",
            "_source": {"excludes": list(_NOT_IN_SOURCE)},
            "properties": {**_FIELDS, **dict.fromkeys(VECTORS, dialect.mapping(self.vectors))},
        }

    def settings(self, dialect: Dialect) -> dict[str, Any]:
        """Return the settings."""
        return {**self.layout, **MERGES, **dialect.settings(self.vectors)}

    @property
    def layout(self) -> dict[str, Any]:
        """Return the settings that do not depend on vectors."""
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


def in_collection(name: str) -> Json:
    """Return the filter for the documents of one collection."""
    return _IN_DEFAULT if name == DEFAULT_COLLECTION else {"term": {"collection": name}}


def vectors(details: Json, dialect: Dialect) -> Vectors:
    """Return the kind of vectors of an existing index."""
    return dialect.vectors(_properties(details)[VECTORS[0]])


def missing(details: Json, dialect: Dialect) -> dict[str, Json]:
    """Return the mappings of the fields to add to an existing index, which is usable."""
    properties = _properties(details)
    mappings = _FIELDS | dict.fromkeys(VECTORS, dialect.mapping(vectors(details, dialect)))
    return {field: mappings[field] for field in _ADDABLE if field not in properties}


def missing_settings(details: Json) -> dict[str, str]:
    """Return the settings to add to an existing index, unless an operator has set some of their kind."""
    return {} if "merge" in details.get("settings", {}).get("index", {}) else MERGES


def why_unusable(name: str, indices: Json, dialect: Dialect) -> str:
    """Return the reason why the index `name` cannot be used, or ""; `indices` is the result of GET /name."""
    if reason := why_foreign(name, indices):
        return reason
    ((index, details),) = indices.items()
    fields = _FIELDS | dict.fromkeys(VECTORS, dialect.vector)
    properties = _properties(details)
    required = {field: fields[field] for field in fields if field in properties or field not in _ADDABLE}
    if wrong := _wrong(details, required):
        return f"the index {index} is incompatible with this version of Match ({', '.join(wrong)}): run `make reindex`"
    return ""


def why_foreign(name: str, indices: Json) -> str:
    """Return the reason why `name` is not an index of any version of Match, in one line, or ""."""
    elsewhere = "nothing was changed; ELASTICSEARCH_INDEX can name another"
    if not all(name in details["aliases"] for details in indices.values()):
        return f"the server has an index named {name} that is not an alias of Match: {elsewhere}"
    if len(indices) > 1:
        return f"the alias {name} has several indices ({', '.join(sorted(indices))}): {elsewhere}"
    ((index, details),) = indices.items()
    if _wrong(details, {field: _FIELDS[field] for field in _IDENTIFYING}):
        return f"the alias {name} is of {index}, which is not an index of images: {elsewhere}"
    return ""


def _properties(details: Json) -> dict[str, Json]:
    properties: dict[str, Json] = details["mappings"].get("properties", {})
    return properties


def _wrong(details: Json, fields: dict[str, Json]) -> list[str]:
    """Return the fields that are missing in the index's mapping, or different.

    >>> _wrong({"mappings": {"properties": {"a": {"type": "text"}}}}, {"a": {"type": "long"}, "b": {"type": "long"}})
    ['a is text', 'b is missing']
    """
    existing = _properties(details)
    return [
        f"{field} is {existing[field].get('type', 'an object')}" if field in existing else f"{field} is missing"
        for field, required in fields.items()
        if not _fits(existing.get(field), required)
    ]


def _fits(existing: Json | None, required: Json) -> bool:
    # The server omits the type of an object.
    return existing is not None and required.items() <= {"type": "object", **existing}.items()
