"""The store's interface: what a store promises, whichever it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.pictures.signature import LENGTH, Signature


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One stored picture.

    `signatures` is never empty; the first is the whole picture's. `seq` is the place of the request that stored it in
    the order of all requests: no other record has it. `added` is in milliseconds since 1970 (UTC); `width` and
    `height` are pixels of the upright picture.
    """

    filepath: str
    seq: int
    signatures: tuple[Signature, ...]
    metadata: Mapping[str, Any] | None = None
    added: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """The deletion of `filepath`: it outranks every record with a smaller `seq`, whenever that arrives.

    The deletions of one request share its place; `added` is in milliseconds since 1970 (UTC).
    """

    filepath: str
    seq: int
    added: int


def signatures_to_bytes(signatures: Sequence[Signature]) -> bytes:
    """Return the one form in which every store keeps a record's signatures."""
    return b"".join(signature.astype(np.int8, copy=False).tobytes() for signature in signatures)


def signatures_from_bytes(data: bytes) -> tuple[Signature, ...]:
    """Read what `signatures_to_bytes` wrote."""
    return tuple(np.frombuffer(data, np.int8, LENGTH, start) for start in range(0, len(data), LENGTH))


class Verdict(StrEnum):
    """What became of one item of a write."""

    STORED = "stored"
    SUPERSEDED = "superseded"
    """A newer request for this filepath stands already: nothing was changed."""
    HELD = "held"
    """The store cannot take it now; the same item may be written later."""
    REJECTED = "rejected"
    """The store will never take this item."""


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of one item; `reason` says why it was held or rejected."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A stored picture near a query: where the exact distance is still to be computed."""

    filepath: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the collection, in order; what comes next is after the seq `after`."""

    filepaths: list[str]
    after: int


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the store answers reads and takes writes, and what is wrong where it does not."""

    reads: bool
    writes: bool
    detail: str = ""


class Store(Protocol):
    """Every method raises StoreUnavailable when the store cannot answer now, StoreError when it breaks.

    Safe to call from many threads; what one process wrote, every other process finds.

    `where` keeps the pictures whose metadata hold every one of its values. A key is a path: keys joined by dots. An
    array holds each of its elements; a string compares as it is, a number or boolean by its JSON text ("1.5", "true");
    null is no value. No value is too long to be compared.
    """

    def prepare(self) -> None:
        """Create what is absent (tables, index, alias); safe when several processes do it at once."""

    def put(self, items: Sequence[Record | Tombstone]) -> list[Written]:
        """Write all, durably, and return one outcome an item, in order.

        The newest `seq` of a filepath wins in any order of arrival, also within one call; the same `seq` again is
        STORED and changes nothing that a reader sees. A deletion of an absent filepath is STORED.
        """

    def candidates(
        self, queries: NDArray[np.int8], *, limit: int, where: Mapping[str, str] | None = None
    ) -> list[list[Candidate]]:
        """Return, for each row of `queries` (n, 272), the `limit` nearest pictures or more, best first as far as known.

        A picture is as near as the nearest of its signatures. Featureless pictures are never among them, and a
        featureless query has none.
        """

    def records(self, filepaths: Sequence[str]) -> dict[str, Record]:
        """Return the records of those filepaths that are stored, exactly as spelled."""

    def metadata(self, filepaths: Sequence[str]) -> dict[str, Mapping[str, Any] | None]:
        """Return the metadata of those filepaths that are stored, cheaper than their records."""

    def filepaths(self, *, offset: int, limit: int, where: Mapping[str, str] | None = None) -> Page:
        """Return filepaths in the order of the requests that stored them, at any offset in bounded time.

        A page that is not full is the end for now; `after` tells nothing where it is empty.
        """

    def filepaths_after(self, seq: int, *, limit: int, where: Mapping[str, str] | None = None) -> Page:
        """Return the filepaths that follow `seq` in the order of requests; 0 comes before all.

        A walk from page to page meets every picture that stands unchanged meanwhile exactly once, whatever is written.
        One that is overwritten moves to the end, so it may come twice; a page that is not full is the end for now.
        """

    def count(self, *, where: Mapping[str, str] | None = None) -> int:
        """Return how many pictures are stored."""

    def refresh(self) -> None:
        """Return when all that was written before this call is found by searches; concurrent calls share the work."""

    def purge(self, *, before: int, limit: int) -> int:
        """Forget at most `limit` tombstones added before `before` (ms since 1970); return how many."""

    def health(self) -> Health:
        """Say, without raising, whether the store serves."""

    def close(self) -> None:
        """Give back connections and threads."""
