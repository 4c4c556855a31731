"""Signatures, records, patches and tombstones."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.images.local_features.features import Keypoints, LocalFeatures
from common.images.signature import LENGTH, Signature
from common.store.base import DEFAULT_COLLECTION, Patch, Record, Tombstone


def signature(seed: int) -> Signature:
    """Return a signature unlike those of other seeds."""
    return np.random.default_rng(seed).integers(-2, 3, LENGTH).astype(np.int8)


# The signature of an image without features.
FEATURELESS: Signature = np.zeros(LENGTH, np.int8)


def record(
    filepath: str,
    seq: int,
    *signatures: Signature,
    metadata: Mapping[str, Any] | None = None,
    metadata_seq: int | None = None,
    width: int = 640,
    height: int = 480,
    sha256: bytes | None = None,
    url: str | None = None,
    features: bytes | None = None,
    collection: str = DEFAULT_COLLECTION,
) -> Record:
    """Return a record; its signature and the time at which it was added follow from `seq`."""
    return Record(
        collection=collection,
        filepath=filepath,
        seq=seq,
        signatures=signatures or (signature(seq),),
        metadata=metadata,
        metadata_seq=metadata_seq,
        added=1_700_000_000_000 + seq,
        width=width,
        height=height,
        sha256=sha256,
        url=url,
        features=features,
    )


def features_of(*words: int) -> bytes:
    """Return encoded local features with these words, which may repeat."""
    count = len(words)
    centres = np.linspace(0.1, 0.9, count) * 400
    keypoints = Keypoints(x=centres, y=centres, size=np.full(count, 12.0), angle=np.ones(count))
    mirrored = np.zeros(count, np.bool_)
    return LocalFeatures(keypoints, np.array(sorted(words), np.uint32), mirrored, width=640, height=480).encode()


def patch(
    filepath: str, seq: int, metadata: Mapping[str, Any] | None, *, collection: str = DEFAULT_COLLECTION
) -> Patch:
    """Return a merge patch of the metadata."""
    return Patch(collection=collection, filepath=filepath, seq=seq, metadata=metadata, added=1_700_000_000_000 + seq)


def deletion(filepath: str, seq: int, *, collection: str = DEFAULT_COLLECTION) -> Tombstone:
    """Return the tombstone of a deletion."""
    return Tombstone(collection=collection, filepath=filepath, seq=seq, added=1_700_000_000_000 + seq)
