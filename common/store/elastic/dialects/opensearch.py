"""OpenSearch's dialect: `knn_vector` fields of bits, of the k-NN plugin."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from common.images.signature import Signature
from common.store.elastic.dialects.base import BITS, HNSW, Json, Vectors, bits

# The other engines let overwritten documents take places among the nearest (k-NN issues 1081 and 1491), and need a
# native library.
_METHOD: Final = {"name": "hnsw", "engine": "lucene", "space_type": "hamming", "parameters": HNSW}


class OpenSearchDialect:
    """Vectors as signed bytes. A graph is searched by `knn`, and a field without one by a script of the plugin."""

    product: Final = "OpenSearch"
    vector: Final[Json] = {"type": "knn_vector", "dimension": BITS, "data_type": "BINARY"}

    def mapping(self, vectors: Vectors) -> dict[str, Any]:
        """Return the mapping of a vector field; a field without a method has no graph."""
        return {**self.vector, "method": _METHOD} if vectors == "hnsw" else dict(self.vector)

    def settings(self, vectors: Vectors) -> dict[str, Any]:
        """Return the setting that enables graphs: with it, a field without a method gets one of the default engine."""
        return {"index.knn": vectors == "hnsw"}

    def vectors(self, mapping: Json) -> Vectors:
        """Return the kind: only a graph has a method."""
        return "hnsw" if "method" in mapping else "flat"

    def value(self, signature: Signature) -> list[int]:
        """Return eight bits in each number."""
        values: list[int] = bits(signature).view(np.int8).tolist()
        return values

    def nearest(  # noqa: PLR0913 - as in the interface
        self,
        field: str,
        query: Signature,
        *,
        vectors: Vectors,
        k: int,
        num_candidates: int,
        filters: Sequence[Json],
    ) -> Json:
        """Return a `knn` query, or a script that compares with every document."""
        vector = self.value(query)
        if vectors == "flat":
            documents = {"bool": {"filter": [*filters, {"exists": {"field": field}}]}}
            parameters = {"field": field, "query_value": vector, "space_type": "hamming"}
            script = {"lang": "knn", "source": "knn_score", "params": parameters}
            return {"script_score": {"query": documents, "script": script}}
        near: dict[str, Any] = {"vector": vector, "k": k, "method_parameters": {"ef_search": num_candidates}}
        if filters:
            near["filter"] = {"bool": {"filter": filters}}
        # Without this a field that the index lacks is an error.
        return {"knn": {field: {**near, "ignore_unmapped": True}}}

    def least_score(self, differing: int) -> float:
        """Return the score halfway to that of one more bit."""
        return 1 / (1 + differing + 0.5)
