"""The interface of a dialect: the mapping, value and query of a bit vector."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.images.signature import LENGTH, Signature

Json: TypeAlias = Mapping[str, Any]
# `hnsw` is a graph and approximate; `flat` compares all vectors.
Vectors: TypeAlias = Literal["hnsw", "flat"]

# A bit for each value above zero, then one for each below.
BITS = 2 * LENGTH
# Links of a vector in the graph, and the number of candidates considered for them.
HNSW = {"m": 16, "ef_construction": 60}
# The largest number of differing bits at a distance d is BITS_PER_SQUARE d² + BITS_MARGIN, and at least BITS_LEAST.
BITS_PER_SQUARE = 552
BITS_MARGIN = 79
BITS_LEAST = 190


class Dialect(Protocol):
    """The parts of requests and mappings that depend on the product; all others are the same."""

    @property
    def product(self) -> str:
        """Return the product's name, for messages."""

    @property
    def vector(self) -> Json:
        """Return the part that the mapping of every vector field contains, as the server returns it."""

    def mapping(self, vectors: Vectors) -> dict[str, Any]:
        """Return the mapping of a vector field."""

    def settings(self, vectors: Vectors) -> dict[str, Any]:
        """Return the settings that an index with these vectors needs."""

    def vectors(self, mapping: Json) -> Vectors:
        """Return the kind of vectors in an existing field."""

    def value(self, signature: Signature) -> object:
        """Return the signature's bits as a document and a query contain them."""

    def nearest(  # noqa: PLR0913 - the options are keyword arguments
        self,
        field: str,
        query: Signature,
        *,
        vectors: Vectors,
        k: int,
        num_candidates: int,
        filters: Sequence[Json],
    ) -> Json:
        """Return the query for the `k` nearest documents in `field` that pass all filters, or more.

        HNSW considers at least `num_candidates` vectors in each shard. A field that the index lacks has no documents.
        """

    def least_score(self, differing: int) -> float:
        """Return a score that all vectors with so many `differing` bits have, and none with more."""


def bits(signatures: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return the signs of (..., 272) as bits, eight in a byte: first where a value is above zero, then below."""
    return np.packbits(np.concatenate([signatures > 0, signatures < 0], axis=-1), axis=-1)


def bits_within(distance: float) -> int:
    """Return the number of differing bits that a pair at `distance` does not exceed.

    >>> bits_within(0.45), bits_within(0.6), bits_within(1)
    (190, 277, 544)
    """
    return min(BITS, max(BITS_LEAST, int(BITS_PER_SQUARE * distance**2 + BITS_MARGIN)))
