"""The interface of the thumbnails of stored images: apart from the store, so that they slow no search down."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from common.store.base import DEFAULT_COLLECTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The record that a thumbnail belongs to; `seq` is unique among all records, and replaced with the image."""

    seq: int
    filepath: str
    collection: str = DEFAULT_COLLECTION


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small WebP of an image."""

    owner: Owner
    webp: bytes


class Thumbnails(Protocol):
    """Thumbnails by the sequence number of their record.

    A record that is replaced or deleted leaves its thumbnail behind. Nobody finds it without the record, and a pass of
    the retention deletes it. Every method raises StoreUnavailable if a retry may succeed, and StoreError if not.
    """

    def put(self, thumbnails: Sequence[Thumbnail]) -> None:
        """Keep the thumbnails; one of the same `seq` is replaced."""

    def get(self, seq: int) -> bytes | None:
        """Return the WebP of a record, None where none is kept."""

    def owners_after(self, seq: int, *, limit: int) -> list[Owner]:
        """Return the owners with a higher `seq`, by seq; 0 is below all."""

    def delete(self, seqs: Sequence[int]) -> None:
        """Delete the thumbnails of these records; absent ones are not an error."""

    def close(self) -> None:
        """Close connections."""
