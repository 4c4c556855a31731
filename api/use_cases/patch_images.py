"""Changes of the metadata of stored images."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import time_ns
from typing import Any

from api.sources import UnknownFilepath
from common.errors import InputError, StoreUnavailable
from common.queue.expected_images import ExpectedImages
from common.queue.sequence import SequenceNumbers
from common.record_rules import check_size
from common.store.base import Patch, Store, Verdict
from common.store.patches import merge_patch

Metadata = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Patched:
    """The metadata of an image after a patch; if `is_stored` is false, the image is not stored yet."""

    is_stored: bool
    metadata: Metadata = None


@dataclass(frozen=True, slots=True)
class PatchImages:
    """Patches metadata, also those of an add that was accepted earlier and is stored later."""

    sequence: SequenceNumbers
    expected: ExpectedImages
    store: Store

    def patch(self, filepath: str, patch: Metadata, *, collection: str) -> Patched:
        """Apply a JSON merge patch (RFC 7396) to the metadata of an image, or keep it for an image on its way.

        Raises UnknownFilepath if no image is stored and none is on its way, InputError if the metadata become too
        large, and StoreUnavailable when the store cannot take the patch now.
        """
        item = Patch(
            collection=collection,
            filepath=filepath,
            seq=self.sequence.next(),
            metadata=patch,
            added=time_ns() // 1_000_000,
        )
        self._check(item)
        [written] = self.store.put([item])
        if written.verdict is Verdict.RETRY:
            raise StoreUnavailable(f"the store cannot change metadata now: {written.reason}")
        if written.verdict is Verdict.REJECTED:
            raise InputError(f"metadata {written.reason}", field="metadata")
        stored = self._stored(item)
        if filepath not in stored and written.verdict is Verdict.SUPERSEDED:
            # A newer request has deleted the image meanwhile.
            raise UnknownFilepath("filepath")
        return Patched(filepath in stored, stored.get(filepath))

    def _check(self, item: Patch) -> None:
        stored = self._stored(item)
        if item.filepath not in stored and not self.expected.may_arrive(item.filepath, collection=item.collection):
            # Its task may have ended after the first look.
            stored = self._stored(item)
            if item.filepath not in stored:
                raise UnknownFilepath("filepath")
        try:
            check_size(merge_patch(stored.get(item.filepath), item.metadata) or {})
        except ValueError as error:
            message = f"metadata {error} with this patch"
            raise InputError(message, field="metadata") from None

    def _stored(self, item: Patch) -> dict[str, Metadata]:
        return self.store.metadata([item.filepath], collection=item.collection)
