"""Records, tombstones and histories of patches as the server's documents, and back."""

import base64
import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.images.signature import Signature
from common.store.base import (
    DEFAULT_COLLECTION,
    Candidate,
    Record,
    Tombstone,
    WordCandidate,
    signatures_from_bytes,
    signatures_to_bytes,
)
from common.store.elastic.bulk import action as versioned
from common.store.elastic.dialects import Dialect, Json
from common.store.elastic.mapping import SIGNATURES_MAX, VECTORS
from common.store.labels import labels
from common.store.patches import History, Unpatched
from common.store.words import indexed_words

# The doc values of records, which are not in their source.
BINARY = ["sig", "features"]
# Created once: json.dumps creates an encoder for each call with options.
_STRICT = json.JSONEncoder(allow_nan=False)


def identity(filepath: str, collection: str = DEFAULT_COLLECTION) -> str:
    """Return the document's `_id`, with a digest: a filepath may be four times as long as an `_id`.

    Filepaths with lone surrogates, which UTF-8 cannot encode, also get distinct ids. Only the ids of the default
    collection have no name, as those of earlier versions.
    """
    digest = hashlib.sha256(filepath.encode("utf-8", "surrogatepass")).hexdigest()
    return digest if collection == DEFAULT_COLLECTION else f"{collection}:{digest}"


def history_identity(filepath: str, collection: str = DEFAULT_COLLECTION) -> str:
    """Return the `_id` of the history of a filepath's patches; no image has it."""
    return f"~{identity(filepath, collection)}"


def lines(
    item: Record | Tombstone, dialect: Dialect, *, action: str | None = None, unpatched: Unpatched | None = None
) -> str:
    """Return the item's lines of a bulk request; without an `action`, the highest `seq` wins.

    `unpatched` are the metadata of a record before the patches of its history. Raises ValueError, TypeError or
    RecursionError if it has no JSON.
    """
    document = _document(item, dialect)
    if unpatched is not None:
        document["unpatched"] = unpatched.to_json()
    # ASCII only: otherwise a lone surrogate in the metadata would fail the whole body.
    encoded = _STRICT.encode(document)
    return f"{action or versioned('index', identity(item.filepath, item.collection), item.seq)}\n{encoded}\n"


def history_line(history: History, *, added: int) -> str:
    """Return the document of a history; it is purged like a tombstone."""
    return _STRICT.encode({"deleted": True, "added": added, "patches": history.to_json()})


def is_history(source: Json) -> bool:
    """Return whether a document is a history of patches."""
    return "patches" in source


def copy_of_history(document_id: str, source: Json) -> str:
    """Return the lines of a bulk request that copies a history."""
    return f"{json.dumps({'index': {'_id': document_id}})}\n{json.dumps(source)}\n"


def word_text(words: NDArray[np.uint32]) -> str:
    """Return the text of the different words, of a document or a query.

    >>> word_text(np.array([74565, 10, 10], np.uint32))
    '0000a 12345'
    """
    return " ".join(f"{word:05x}" for word in np.unique(words).tolist())


class CandidateDecoder:
    """Decodes the candidates of several searches; an image is often a candidate of many, and is decoded once."""

    def __init__(self) -> None:
        self._decoded: dict[tuple[str, str], Candidate] = {}

    def candidate(self, hit: Json) -> Candidate:
        """Return the candidate in a search's hit with the doc values path and sig."""
        fields = hit["fields"]
        key = fields["path"][0], fields["sig"][0]
        if key not in self._decoded:
            self._decoded[key] = Candidate(key[0], _signatures(hit))
        return self._decoded[key]


def word_candidate(hit: Json) -> WordCandidate:
    """Return the candidate in a search's hit with the doc values path and features."""
    return WordCandidate(hit["fields"]["path"][0], _binary(hit, "features"))


def item(hit: Json) -> Record | Tombstone:
    """Return the record or tombstone in a hit with its source and the doc values in BINARY."""
    source = hit["_source"]
    collection = source.get("collection", DEFAULT_COLLECTION)
    if source["deleted"]:
        return Tombstone(collection=collection, filepath=source["path"], seq=source["seq"], added=source["added"])
    return Record(
        collection=collection,
        filepath=source["path"],
        seq=source["seq"],
        signatures=_signatures(hit),
        metadata=source.get("metadata"),
        metadata_seq=source.get("metadata_seq"),
        added=source["added"],
        width=source["width"],
        height=source["height"],
        sha256=bytes.fromhex(source["sha256"]) if "sha256" in source else None,
        url=source.get("url"),
        features=_binary(hit, "features") if "features" in hit["fields"] else None,
    )


def _document(item: Record | Tombstone, dialect: Dialect) -> dict[str, Any]:
    deleted = isinstance(item, Tombstone)
    document: dict[str, Any] = {"path": item.filepath, "seq": item.seq, "deleted": deleted, "added": item.added}
    if item.collection != DEFAULT_COLLECTION:
        document["collection"] = item.collection
    if isinstance(item, Tombstone):
        return document
    if len(item.signatures) > SIGNATURES_MAX:
        message = f"a record has at most {SIGNATURES_MAX} signatures"
        raise ValueError(message)
    document |= {"width": item.width, "height": item.height}
    document["sig"] = base64.b64encode(signatures_to_bytes(item.signatures)).decode()
    # A featureless image has no vector, so no search returns it.
    document |= {field: dialect.value(sig) for field, sig in zip(VECTORS, item.signatures, strict=False) if sig.any()}
    if item.sha256 is not None:
        document["sha256"] = item.sha256.hex()
    if item.url is not None:
        document["url"] = item.url
    if item.features is not None:
        document |= {
            "features": base64.b64encode(item.features).decode(),
            "words": word_text(indexed_words(item.features)),
        }
    if item.metadata_seq is not None:
        document["metadata_seq"] = item.metadata_seq
    if item.metadata is not None:
        document |= {"metadata": item.metadata, "labels": sorted(labels(item.metadata))}
    return document


def _signatures(hit: Json) -> tuple[Signature, ...]:
    return signatures_from_bytes(_binary(hit, "sig"))


def _binary(hit: Json, field: str) -> bytes:
    # OpenSearch omits the padding; more than is necessary is ignored.
    return base64.b64decode(hit["fields"][field][0] + "==")
