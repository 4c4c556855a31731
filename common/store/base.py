"""The interface of a store, and the types of its arguments and results."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common import collection_names
from common.images.flatness import are_featureless
from common.images.signature import LENGTH, Signature

DEFAULT_COLLECTION = collection_names.DEFAULT_COLLECTION
# OpenSearch accepts 1,024 clauses in a query, and the selection needs some.
WORDS_MAX = 900
"""Different words in a lookup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The images of one collection that pass a filter.

    `where` filters by metadata: an image passes if its metadata contain all the values. A key is a path, keys joined by
    dots. An array contains each of its elements. A string is compared unchanged, a number or boolean by its JSON text
    ("1.5", "true"). Null matches nothing. Values of any length can be compared. The filepath of an image begins with
    `filepath_prefix`.
    """

    collection: str = DEFAULT_COLLECTION
    where: Mapping[str, str] = field(default_factory=dict)
    filepath_prefix: str = ""

    @property
    def is_filtered(self) -> bool:
        """Whether some images of the collection may not pass."""
        return bool(self.where or self.filepath_prefix)

    @property
    def filepaths_end(self) -> str | None:
        """Return the lowest text above all with the prefix, in the order of code points; None if there is none."""
        for index in reversed(range(len(self.filepath_prefix))):
            following = ord(self.filepath_prefix[index]) + 1
            if following <= sys.maxunicode:
                # UTF-8 does not encode surrogates.
                is_surrogate = 0xD800 <= following <= 0xDFFF  # noqa: PLR2004 - Unicode's range
                return self.filepath_prefix[:index] + chr(0xE000 if is_surrogate else following)
        return None


DEFAULT_SELECTION = Selection()
"""All images of the default collection."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One stored image; its filepath is unique within its collection.

    `signatures` is never empty; the first is that of the whole image, a second one that of the image without its flat
    margins. `seq` is the sequence number of the request that stored it, and unique among records. `metadata_seq` is
    that of the last request that changed the metadata, if it is another one. `added` is in milliseconds since 1970
    (UTC). `width` and `height` are pixels of the upright image. `sha256` is the digest of its bytes. `url` is its
    source without secrets; an upload has none. `features` are its encoded local features. A record of an earlier
    version has none of the three.
    """

    collection: str = DEFAULT_COLLECTION
    filepath: str
    seq: int
    signatures: tuple[Signature, ...]
    metadata: Mapping[str, Any] | None = None
    metadata_seq: int | None = None
    added: int
    width: int
    height: int
    sha256: bytes | None = None
    url: str | None = None
    features: bytes | None = None

    @property
    def is_featureless(self) -> bool:
        """Whether no search can use one of its signatures, so that none finds it."""
        return are_featureless(self.signatures)

    @property
    def last_metadata_seq(self) -> int:
        """The sequence number of the last request that changed the metadata."""
        return self.seq if self.metadata_seq is None else self.metadata_seq

    def with_metadata(self, metadata: Mapping[str, Any] | None, *, seq: int) -> Self:
        """Return the record with the metadata that the request `seq` changed last."""
        return replace(self, metadata=metadata, metadata_seq=None if seq == self.seq else seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """The deletion of `filepath` in its collection: it outranks every record with a lower `seq`, at any time.

    The deletions of one request share its `seq`; `added` is in milliseconds since 1970 (UTC).
    """

    collection: str = DEFAULT_COLLECTION
    filepath: str
    seq: int
    added: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A change of the metadata of `filepath` by a JSON merge patch (RFC 7396); null removes all metadata.

    It applies to the image that a request with a lower `seq` stores, also if that image is stored later. A tombstone or
    record with a higher `seq` outranks it. `added` is in milliseconds since 1970 (UTC).
    """

    collection: str = DEFAULT_COLLECTION
    filepath: str
    seq: int
    metadata: Mapping[str, Any] | None
    added: int


Item: TypeAlias = Record | Tombstone | Patch
"""One item of a write."""


def signatures_to_bytes(signatures: Sequence[Signature]) -> bytes:
    """Return the form in which every store keeps a record's signatures."""
    return b"".join(signature.astype(np.int8, copy=False).tobytes() for signature in signatures)


def signatures_from_bytes(data: bytes) -> tuple[Signature, ...]:
    """Parse the result of `signatures_to_bytes`."""
    return tuple(np.frombuffer(data, np.int8, LENGTH, start) for start in range(0, len(data), LENGTH))


class Verdict(StrEnum):
    """The outcome of one item of a write."""

    STORED = "stored"
    SUPERSEDED = "superseded"
    """A request with a higher sequence number is stored for this filepath: nothing was changed."""
    RETRY = "retry"
    """The store cannot accept the item now; write it again later."""
    REJECTED = "rejected"
    """The store will never accept this item."""


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of one item, with the reason for a retry or a rejection."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A stored image near a query by the store's approximation; its exact distance decides."""

    filepath: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class WordCandidate:
    """A stored image that shares words with a query, and its encoded local features; their geometry decides."""

    filepath: str
    features: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the images of a selection, by seq; the next page follows the seq `after`."""

    filepaths: list[str]
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A collection with the number of its images and its quota; None is unlimited.

    Stores do not enforce quotas.
    """

    name: str
    images: int
    max_images: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The store's readiness for reads and for writes, and the problem if it is not ready."""

    reads: bool
    writes: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """The bytes of the store's files, and the bytes that are free for them; None where a server does not report it."""

    used_bytes: int
    free_bytes: int | None


class Store(Protocol):
    """Searchable collections of records.

    Every method raises StoreUnavailable if a retry may succeed, and StoreError if not. All methods are safe to call
    from many threads, and every process reads the writes of the others.
    """

    def prepare(self) -> None:
        """Create the missing tables, index and alias; several processes may do so at once."""

    def put(self, items: Sequence[Item]) -> list[Written]:
        """Write all items durably and return one outcome per item, in order.

        The highest `seq` of a filepath in its collection wins in any order of arrival, also within one call. A repeated
        `seq` is STORED and changes nothing that a reader sees. The deletion of an absent filepath is STORED.

        A patch is STORED if it is applied, or kept for an image that is stored later. Patches are applied in the order
        of `seq`. They do not change a record's `seq` or place in lists, only its metadata and `metadata_seq`. The
        patches of a filepath are REJECTED beyond the limits of `common.store.patches`.
        """

    def candidates(
        self,
        queries: NDArray[np.int8],
        *,
        limit: int,
        selection: Selection = DEFAULT_SELECTION,
        max_distance: float | None = None,
    ) -> list[list[Candidate]]:
        """Return for each row of `queries` (n, 272) at least the `limit` nearest images, approximately best first.

        The nearest of an image's signatures counts. Featureless images are never returned, and a featureless query has
        no candidates. With `max_distance`, images beyond it may be omitted. Hundreds of queries take less time
        in one call than in a call each.
        """

    def candidates_by_words(
        self, words: NDArray[np.uint32], *, limit: int, selection: Selection = DEFAULT_SELECTION
    ) -> list[WordCandidate]:
        """Return the `limit` images whose words in common with `words` are rarest, best first.

        They have the highest sums of inverse document frequencies, over all images of the store. A repeated word counts
        once. An image without a common word is not returned. At most WORDS_MAX different words are accepted.
        """

    def records(self, filepaths: Sequence[str], *, collection: str = DEFAULT_COLLECTION) -> dict[str, Record]:
        """Return the records of the filepaths that are stored in the collection; their spelling must be exact."""

    def metadata(
        self, filepaths: Sequence[str], *, collection: str = DEFAULT_COLLECTION
    ) -> dict[str, Mapping[str, Any] | None]:
        """Return the metadata of the filepaths that are stored in the collection; this is cheaper than `records`."""

    def filepaths(self, *, offset: int, limit: int, selection: Selection = DEFAULT_SELECTION) -> Page:
        """Return filepaths by seq, at any offset in bounded time.

        A page with fewer than `limit` filepaths is the last for now; the `after` of an empty page is undefined.
        """

    def filepaths_after(self, seq: int, *, limit: int, selection: Selection = DEFAULT_SELECTION) -> Page:
        """Return the filepaths with a higher seq, by seq; 0 is below all.

        Paging returns every image that is not changed meanwhile exactly once, during any writes. An overwritten image
        moves to the end, so it may be returned twice. A page with fewer than `limit` filepaths is the last for now.
        """

    def count(self, *, selection: Selection = DEFAULT_SELECTION) -> int:
        """Return the number of images in the selection."""

    def collections(self) -> list[Collection]:
        """Return all collections by name. The default one always exists, each other while it has images or an entry."""

    def collection(self, name: str) -> Collection | None:
        """Return one collection; None if it does not exist."""

    def create_collection(self, name: str) -> None:
        """Add an entry for the collection without a quota, unless it has an entry."""

    def put_collection(self, name: str, *, max_images: int | None) -> None:
        """Set the quota of a collection; its entry is added if absent."""

    def delete_collection(self, name: str) -> bool:
        """Delete the entry of a collection without images, and return whether it was one.

        `common.store.deletion` deletes the images before. The default collection only loses its quota.
        """

    def refresh(self) -> None:
        """Make all earlier writes visible to searches before returning; concurrent calls share the work."""

    def purge(self, *, before: int, limit: int) -> int:
        """Delete at most `limit` tombstones added before `before` (ms since 1970); return their number.

        Patches of filepaths without a later patch are deleted like tombstones; records keep their effect.
        """

    def health(self) -> Health:
        """Return the store's readiness, without raising."""

    def disk(self) -> Disk:
        """Return the use of disks; a cluster's least free one counts, and all its copies of the images."""

    def close(self) -> None:
        """Close connections and end threads."""
