"""Elasticsearch's dialect: `dense_vector` fields of bits."""

from collections.abc import Sequence
from typing import Any, Final

from common.images.signature import Signature
from common.store.elastic.dialects.base import BITS, HNSW, Json, Vectors, bits


class ElasticsearchDialect:
    """Vectors as hexadecimal digits, found by `knn` whatever their kind."""

    product: Final = "Elasticsearch"
    vector: Final[Json] = {"type": "dense_vector", "element_type": "bit", "dims": BITS, "index": True}

    def mapping(self, vectors: Vectors) -> dict[str, Any]:
        """Return the mapping of a vector field."""
        return {**self.vector, "index_options": {"type": "hnsw", **HNSW} if vectors == "hnsw" else {"type": "flat"}}

    def settings(self, vectors: Vectors) -> dict[str, Any]:  # noqa: ARG002 - the same for both
        """Return no settings."""
        return {}

    def vectors(self, mapping: Json) -> Vectors:
        """Return the kind in `index_options`."""
        return "flat" if mapping.get("index_options", {}).get("type") == "flat" else "hnsw"

    def value(self, signature: Signature) -> str:
        """Return the bits as hexadecimal digits."""
        return bits(signature).tobytes().hex()

    def nearest(  # noqa: PLR0913 - as in the interface
        self,
        field: str,
        query: Signature,
        *,
        vectors: Vectors,  # noqa: ARG002 - the same query for both
        k: int,
        num_candidates: int,
        filters: Sequence[Json],
    ) -> Json:
        """Return a `knn` query."""
        vector = self.value(query)
        return {
            "knn": {"field": field, "query_vector": vector, "k": k, "num_candidates": num_candidates, "filter": filters}
        }

    def least_score(self, differing: int) -> float:
        """Return the score halfway to that of one more bit; a score is the share of equal bits."""
        return (BITS - differing - 0.5) / BITS
