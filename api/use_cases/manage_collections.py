"""Collections: their existence, quotas and deletion."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from api.collection_errors import TooManyCollections, UnknownCollection
from common.collection_names import DEFAULT_COLLECTION
from common.errors import Overloaded, StoreUnavailable
from common.probes import Probe, ProbeTimeout
from common.queue.items import AddItem, NotEnqueued
from common.queue.jobs import SINGLE_QUEUE, RequestContext
from common.queue.ledger import Ledger
from common.queue.publisher import Publisher
from common.queue.tasks import Action, Task
from common.redis.client import RETRY_AFTER_S
from common.store.base import Collection, Store

# A process does not ask the store again during this time whether a collection exists, or has a quota.
REMEMBERED_S = 1.0
# Maximum time that an add waits for the store, which it does not need; then adds do not ask it for a while.
LOOK_UP_WITHIN_S = 1.0
AWAY_S = 5.0
# Bounds the memory of a process: the names that requests have used during REMEMBERED_S.
MAX_REMEMBERED = 10_000


@dataclass(slots=True)
class ManageCollections:
    """The collections of the store.

    Methods raise StoreUnavailable when the store does not answer. A collection that another process deletes or limits
    is noticed after REMEMBERED_S.
    """

    store: Store
    ledger: Ledger
    publisher: Publisher
    max_collections: int
    _existing_until: dict[str, float] = field(default_factory=dict)
    _unlimited_until: dict[str, float] = field(default_factory=dict)
    _probes: dict[str, Probe[Collection | None]] = field(default_factory=dict)
    _away_until: float = 0.0

    def check_exists(self, name: str) -> None:
        """Raise UnknownCollection unless the collection exists."""
        if name == DEFAULT_COLLECTION or _is_remembered(self._existing_until, name):
            return
        self.get(name)

    def get(self, name: str, *, field: str = "collection") -> Collection:
        """Return the collection; raises UnknownCollection, whose `field` is this one, if it does not exist."""
        collection = self.store.collection(name)
        if collection is None:
            raise UnknownCollection(field=field)
        self._remember(collection)
        return collection

    def prepare_add(self, name: str) -> int | None:
        """Create the collection if it does not exist; return the number of images that it may still get, if limited.

        Adds are accepted while the store is unavailable or slow: then nothing is limited, and a worker creates the
        collection. Raises TooManyCollections.
        """
        if _is_remembered(self._unlimited_until, name):
            return None
        try:
            collection = self._look_up(name)
            if collection is None:
                self._check_number(field="collection")
                self.store.create_collection(name)
                return None
        except (StoreUnavailable, ProbeTimeout):
            return None
        self._remember(collection)
        return _left(collection)

    def left(self, name: str) -> int | None:
        """Return the number of images that the collection may still get; None if it is not limited, as in adds."""
        try:
            collection = self._look_up(name)
        except (StoreUnavailable, ProbeTimeout):
            return None
        return None if collection is None else _left(collection)

    def _look_up(self, name: str) -> Collection | None:
        """Return the collection; raises StoreUnavailable or ProbeTimeout when the store does not answer soon."""
        if self._away_until > monotonic():
            raise StoreUnavailable("the store did not answer")
        if len(self._probes) >= MAX_REMEMBERED:
            self._probes.clear()
        probe = self._probes.setdefault(name, Probe(partial(self.store.collection, name)))
        try:
            return probe.result(timeout_s=LOOK_UP_WITHIN_S)
        except ProbeTimeout:
            self._away_until = monotonic() + AWAY_S
            raise

    def stored(self, name: str, filepaths: Sequence[str]) -> set[str]:
        """Return the filepaths that are stored in the collection."""
        return set(self.store.metadata(filepaths, collection=name))

    def put(self, name: str, *, max_images: int | None) -> tuple[Collection, bool]:
        """Create or change the collection; return it, and whether it is new. Raises TooManyCollections."""
        existing = self.store.collection(name)
        if existing is None:
            self._check_number(field="name")
        self.store.put_collection(name, max_images=max_images)
        self._forget(name)
        return self.get(name, field="name"), existing is None

    def delete(self, name: str, context: RequestContext) -> Task:
        """Enqueue the deletion of the collection with its images, and return its task.

        It includes all adds that were accepted before. Raises UnknownCollection if the collection does not exist,
        Overloaded if too many tasks are open.
        """
        self.get(name, field="name")
        [result] = self.ledger.enqueue(
            [AddItem()], queue=SINGLE_QUEUE, context=context, collection=name, action=Action.DELETE_COLLECTION
        )
        if isinstance(result, NotEnqueued):
            raise Overloaded("too many tasks are waiting", retry_after=RETRY_AFTER_S)
        self.publisher.send([result.task], queue=result.queue)
        self._forget(name)
        return result.task

    def _check_number(self, *, field: str) -> None:
        if len(self.store.collections()) >= self.max_collections:
            raise TooManyCollections(self.max_collections, field=field)

    def _remember(self, collection: Collection) -> None:
        until = monotonic() + REMEMBERED_S
        if len(self._existing_until) >= MAX_REMEMBERED:
            self._existing_until.clear()
            self._unlimited_until.clear()
        self._existing_until[collection.name] = until
        if collection.max_images is None:
            self._unlimited_until[collection.name] = until

    def _forget(self, name: str) -> None:
        self._existing_until.pop(name, None)
        self._unlimited_until.pop(name, None)


def _left(collection: Collection) -> int | None:
    return None if collection.max_images is None else max(0, collection.max_images - collection.images)


def _is_remembered(until: dict[str, float], name: str) -> bool:
    return until.get(name, 0.0) > monotonic()
