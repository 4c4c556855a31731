"""image-match's own index and search on a current Elasticsearch or OpenSearch, as the baseline."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from image_match.signature_database_base import get_words, max_contrast, words_to_int
from numpy.typing import NDArray
from parts.collection import Rows, filepath, metadata

from common.images.signature import expand
from common.search import CUTOFF
from common.store.elastic.connection import Connection

# image-match's defaults: values in a word, words in a signature, hits of a search.
WORD, WORDS, SIZE = 16, 63, 100
TIMEOUT_S = 3600.0


class Peer:
    """image-match's index and search. Its driver needs Elasticsearch 2.3; this class sends the same requests."""

    def __init__(self, url: str, mapping: str) -> None:
        self.cluster = Connection(url, index="peer", timeout_s=TIMEOUT_S).cluster()
        word = {f"simple_word_{number}": {"type": "integer"} for number in range(WORDS)}
        lean: dict[str, Any] = {
            "path": {"type": "keyword"},
            "signature": {"type": "integer", "index": False, "doc_values": False},
            "metadata": {"type": "object", "enabled": False},
        }
        body = {
            "mappings": {"properties": {"lean": word | lean, "words": word, "dynamic": {}}[mapping]},
            "settings": {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "1000ms"},
        }
        self.cluster.put("/peer", body)

    def put(self, records: Sequence[dict[str, Any]]) -> None:
        lines = (f'{{"index":{{}}}}\n{json.dumps(one)}\n' for one in records)
        assert not self.cluster.post_lines("/peer/_bulk", lines)["errors"]

    def put_one(self, record: dict[str, Any]) -> None:
        self.cluster.post("/peer/_doc", record)

    def refresh(self) -> None:
        self.cluster.post("/peer/_refresh")

    def search(self, signature: Rows) -> list[str]:
        should = [
            {"term": {f"simple_word_{n}": word}} for n, word in enumerate(words(signature[np.newaxis])[0].tolist())
        ]
        body = {"query": {"bool": {"should": should}}, "_source": {"excludes": ["simple_word_*"]}, "size": SIZE}
        hits = self.cluster.post("/peer/_search", body)["hits"]["hits"]
        if not hits:
            return []
        rows = np.array([hit["_source"]["signature"] for hit in hits], np.int8)
        distances = peer_distances(rows, expand(signature))
        return [hit["_source"]["path"] for hit, distance in zip(hits, distances, strict=True) if distance < CUTOFF]


def words(signatures: Rows) -> NDArray[np.int64]:
    """Return the words of each signature, an array of (n, 63).

    The same as image-match's `get_words`, `max_contrast` and `words_to_int`.
    """
    values = np.stack([expand(signature) for signature in signatures])
    starts = np.linspace(0, values.shape[1], WORDS, endpoint=False).astype(int)
    padded = np.pad(np.sign(values), ((0, 0), (0, WORD)))
    numbers: NDArray[np.int64] = (padded[:, starts[:, np.newaxis] + np.arange(WORD)] + 1) @ 3 ** np.arange(WORD)
    return numbers


def verify_words(signatures: Rows) -> None:
    """Compare `words` with image-match's own functions."""
    for signature, numbers in zip(signatures, words(signatures), strict=True):
        expected = get_words(expand(signature), WORD, WORDS)
        max_contrast(expected)
        assert (words_to_int(expected) == numbers).all()


def peer_distances(rows: Rows, one: Rows) -> NDArray[np.float64]:
    """Return image-match's `normalized_distance`."""
    many, query = rows.astype(int), one.astype(int)
    norms = np.linalg.norm(many, axis=1) + np.linalg.norm(query)
    return np.linalg.norm(many - query, axis=1) / norms


def peer_records(start: int, rows: Rows) -> list[dict[str, Any]]:
    return [
        {
            "path": filepath(row),
            "signature": expand(signature).tolist(),
            "metadata": metadata(row),
            **{f"simple_word_{number}": word for number, word in enumerate(some)},
        }
        for row, (signature, some) in enumerate(zip(rows, words(rows).tolist(), strict=True), start)
    ]
