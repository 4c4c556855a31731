"""What an index of ours looks like, and whether one that stands is such an index."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from common.pictures.signature import LENGTH

# A mapping has one vector field for each place in a record's signatures; a field that is empty costs a search nothing.
SIGNATURES_MAX = 2
VECTORS = tuple(f"bits_{place}" for place in range(SIGNATURES_MAX))
# The query for what is stored: tombstones are documents as well.
LIVE: Final = {"term": {"deleted": False}}
# Links of a vector in the graph, and how many neighbours are looked at to find them.
HNSW_M = 16
HNSW_EF_CONSTRUCTION = 60

_Json = Mapping[str, Any]

_VECTOR: Final[_Json] = {"type": "dense_vector", "element_type": "bit", "dims": 2 * LENGTH, "index": True}
_VECTOR_INDEX: Final = {
    "hnsw": {"type": "hnsw", "m": HNSW_M, "ef_construction": HNSW_EF_CONSTRUCTION},
    "flat": {"type": "flat"},
}
# By these alone an index is known as ours, whichever version made it.
_CORE: Final[dict[str, _Json]] = {
    # Looked up by _id; here to be read, not searched.
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
    # Kept as it is, looked at by nobody.
    "metadata": {"type": "object", "enabled": False},
    # One field however many keys there are. For metadata of 200 bytes it takes 140 bytes, `flattened` 250.
    "labels": {"type": "keyword", "doc_values": False},
    **dict.fromkeys(VECTORS, _VECTOR),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a new index is made; one that stands keeps its own until it is copied into a new one."""

    shards: int = 1
    # A number, or a range that follows the number of nodes.
    replicas: str = "0-1"
    refresh_interval_s: float = 1.0
    vectors: Literal["hnsw", "flat"] = "hnsw"

    def mappings(self) -> dict[str, Any]:
        """Return the mapping."""
        vector = {**_VECTOR, "index_options": _VECTOR_INDEX[self.vectors]}
        return {
            "dynamic": "strict",
            # Read from elsewhere (doc values, the vector index), or made from the metadata.
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
        """Return the interval, said in so many words: left unsaid, a shard that nobody searches stops refreshing."""
        return f"{round(self.refresh_interval_s * 1000)}ms"


def why_unusable(name: str, indices: _Json) -> str:
    """Say in one line why what stands under `name` cannot be used; `indices` is the answer of GET /name."""
    if reason := why_not_ours(name, indices):
        return reason
    ((index, told),) = indices.items()
    if wrong := _wrong(told, _FIELDS):
        return f"the index {index} does not fit this version of Match ({', '.join(wrong)}): `make reindex` mends it"
    return ""


def why_not_ours(name: str, indices: _Json) -> str:
    """Say in one line why what stands under `name` is no index of pictures, in a form of this or another version."""
    elsewhere = "nothing was changed; ELASTICSEARCH_INDEX can name another"
    if not all(name in told["aliases"] for told in indices.values()):
        return f"Elasticsearch holds an index named {name} that is not Match's: {elsewhere}"
    if len(indices) > 1:
        return f"the alias {name} stands for several indices ({', '.join(sorted(indices))}): {elsewhere}"
    ((index, told),) = indices.items()
    if _wrong(told, _CORE):
        return f"the alias {name} stands for {index}, which holds something else than pictures: {elsewhere}"
    return ""


def _wrong(told: _Json, wanted: Mapping[str, _Json]) -> list[str]:
    """Return what is missing in the index's mapping, or different.

    >>> _wrong({"mappings": {"properties": {"a": {"type": "text"}}}}, {"a": {"type": "long"}, "b": {"type": "long"}})
    ['a is text', 'b is missing']
    """
    there = told["mappings"].get("properties", {})
    return [
        f"{field} is {there[field].get('type', 'an object')}" if field in there else f"{field} is missing"
        for field, how in wanted.items()
        if not _fits(there.get(field), how)
    ]


def _fits(there: _Json | None, how: _Json) -> bool:
    # Elasticsearch leaves out that an object is one.
    return there is not None and how.items() <= {"type": "object", **there}.items()
