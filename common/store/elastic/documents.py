"""Records and tombstones as Elasticsearch's documents, and back."""

import base64
import hashlib
import json
from typing import Any

import numpy as np

from common.pictures.signature import Signature
from common.store.base import Candidate, Record, Tombstone, signatures_from_bytes, signatures_to_bytes
from common.store.elastic.answers import Json
from common.store.elastic.bulk import action
from common.store.elastic.mapping import SIGNATURES_MAX, VECTORS
from common.store.labels import labels

# Made once: json.dumps makes a new one for each call with options.
_STRICT = json.JSONEncoder(allow_nan=False)


def identity(filepath: str) -> str:
    """Return the document's name: a filepath may be four times as long as Elasticsearch lets a name be.

    Lone surrogates are no UTF-8 and still name a file apart from any other.
    """
    return hashlib.sha256(filepath.encode("utf-8", "surrogatepass")).hexdigest()


def lines(item: Record | Tombstone) -> str:
    """Return what a bulk needs to index the item; ValueError, TypeError or RecursionError where that cannot be."""
    # ASCII throughout: a lone surrogate in the metadata would otherwise be bytes that cost the whole body.
    document = _STRICT.encode(_document(item))
    return f"{action('index', identity(item.filepath), item.seq)}\n{document}\n"


def bits(signature: Signature) -> str:
    """Return the signs as bits: first where a value is above zero, then where it is below."""
    return np.packbits(np.concatenate([signature > 0, signature < 0])).tobytes().hex()


def candidate(hit: Json) -> Candidate:
    """Read a search's hit with the doc values path and sig."""
    return Candidate(hit["fields"]["path"][0], _signatures(hit))


def item(hit: Json) -> Record | Tombstone:
    """Read a hit with its source and the doc value sig."""
    source = hit["_source"]
    if source["deleted"]:
        return Tombstone(filepath=source["path"], seq=source["seq"], added=source["added"])
    return Record(
        filepath=source["path"],
        seq=source["seq"],
        signatures=_signatures(hit),
        metadata=source.get("metadata"),
        added=source["added"],
        width=source["width"],
        height=source["height"],
    )


def _document(item: Record | Tombstone) -> dict[str, Any]:
    deleted = isinstance(item, Tombstone)
    document = {"path": item.filepath, "seq": item.seq, "deleted": deleted, "added": item.added}
    if isinstance(item, Tombstone):
        return document
    if len(item.signatures) > SIGNATURES_MAX:
        message = f"a record has at most {SIGNATURES_MAX} signatures here"
        raise ValueError(message)
    document |= {"width": item.width, "height": item.height}
    document["sig"] = base64.b64encode(signatures_to_bytes(item.signatures)).decode()
    # A featureless picture has no vector: no search finds it.
    document |= {field: bits(sig) for field, sig in zip(VECTORS, item.signatures, strict=False) if sig.any()}
    if item.metadata is not None:
        document |= {"metadata": item.metadata, "labels": sorted(labels(item.metadata))}
    return document


def _signatures(hit: Json) -> tuple[Signature, ...]:
    return signatures_from_bytes(base64.b64decode(hit["fields"]["sig"][0]))
