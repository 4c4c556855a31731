"""Documents of image-match and dsys/match: each becomes a record without its image."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from common.images.signature import Signature, contract, expand
from common.net.source_url import source_url
from common.record_rules import check_filepath, check_metadata, check_size
from common.store.base import Record

# The fields that are read; 63 words of each document are not needed.
FIELDS = ("path", "url", "signature", "timestamp", "metadata")
EXPANDED = 648
# Metadata of image-match may be any JSON; other values than objects are kept under this key.
VALUE = "metadata"
EARLIEST_YEAR = 1971
WEB = ("http://", "https://")


class InvalidDocument(Exception):
    """A document that is not an image of image-match; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A valid document: `timestamp_us` is in microseconds since 1970 (UTC), None if it has none."""

    filepath: str
    signature: Signature
    timestamp_us: int | None
    metadata: Mapping[str, Any] | None

    def record(self, *, seq: int, collection: str, keeps_url: bool) -> Record:
        """Return the record with this sequence number. Its size is not known."""
        return Record(
            collection=collection,
            filepath=self.filepath,
            seq=seq,
            signatures=(self.signature,),
            metadata=self.metadata,
            added=(seq if self.timestamp_us is None else self.timestamp_us) // 1000,
            width=0,
            height=0,
            url=source_url(self.filepath) if keeps_url and self.filepath.lower().startswith(WEB) else None,
        )


def read_document(source: Mapping[str, Any]) -> Document:
    """Return the valid document. Raises InvalidDocument."""
    path = source.get("path") or source.get("url")
    if not isinstance(path, str):
        raise InvalidDocument("path: must be text")
    with _rules_of("path"):
        check_filepath(path)
    return Document(
        filepath=path,
        signature=_signature(source.get("signature")),
        timestamp_us=_timestamp_us(source.get("timestamp")),
        metadata=_metadata(source.get("metadata")),
    )


def _signature(values: object) -> Signature:
    """Return the 272 independent values of the 648, which contain each of them twice."""
    if not isinstance(values, list) or len(values) != EXPANDED or not all(value in range(-2, 3) for value in values):
        raise InvalidDocument(f"signature: must have {EXPANDED} values from -2 to 2")
    expanded = np.array(values, dtype=np.int8)
    signature = contract(expanded)
    if not np.array_equal(expand(signature), expanded):
        raise InvalidDocument("signature: the values of neighbouring boxes contradict each other")
    return signature


def _timestamp_us(value: object) -> int | None:
    """Return the time of a document; image-match writes local time without a zone, which is taken for UTC."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    if time.year < EARLIEST_YEAR:
        return None
    return (int(time.timestamp()) * 1_000_000) + time.microsecond


def _metadata(value: object) -> Mapping[str, Any] | None:
    if value is None:
        return None
    metadata = value if isinstance(value, dict) else {VALUE: value}
    with _rules_of("metadata"):
        check_metadata(metadata)
        check_size(metadata)
    return metadata or None


@contextmanager
def _rules_of(field: str) -> Iterator[None]:
    """Raise InvalidDocument for a value that breaks a rule."""
    try:
        yield
    except ValueError as error:
        raise InvalidDocument(f"{field}: {error}") from None
