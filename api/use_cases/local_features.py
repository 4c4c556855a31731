"""Which searches use local features, and how many at once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic

from common.modes import Mode
from common.store.base import Selection, Store

# A count on a large index takes milliseconds, and a collection grows slowly.
KEEP_COUNT_S = 60.0
# Counts kept; a client may name any collection.
MAX_COUNTS = 10_000


class LocalFeatureLimits:
    """The limits of searches by local features.

    If not `enabled`, every mode is `fast`. In a collection of more than `max_images` images, `auto` is. `slot` is a
    concurrency limit: it raises Overloaded for a client without a slot.
    """

    def __init__(
        self, store: Store, *, enabled: bool, max_images: int, slot: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        self._store = store
        self._enabled = enabled
        self._max_images = max_images
        self.slot = slot
        # The number of images by collection, and the time until which it is valid.
        self._counts: dict[str, tuple[int, float]] = {}

    def allowed(self, mode: Mode, collection: str) -> Mode:
        """Return the mode that a search in a collection uses."""
        if not self._enabled or (mode == "auto" and self._count(collection) > self._max_images):
            return "fast"
        return mode

    def _count(self, collection: str) -> int:
        count, valid_until = self._counts.get(collection, (0, 0.0))
        now = monotonic()
        if now >= valid_until:
            count = self._store.count(selection=Selection(collection=collection))
            if len(self._counts) >= MAX_COUNTS:
                self._counts.clear()
            self._counts[collection] = count, now + KEEP_COUNT_S
        return count
