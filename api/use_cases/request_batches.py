"""The batches that one request adds tasks to: one of each collection."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from api.use_cases.idempotency import IdempotencyKey
from common.errors import MatchError
from common.queue.batches import HEADER, BatchConflict, Batches, OpenBatch
from common.queue.jobs import RequestContext
from common.queue.ledger import Ledger

# As many as random task ids have.
ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class RequestBatches:
    """Joins a batch when the first item of its collection is accepted.

    `chosen` is the id that the client chose for the batch of `collection`; None for an id of our own. `owner` is the
    name of the request's API key. With an idempotency key the ids of our own are the same in each request.
    """

    batches: Batches
    ledger: Ledger
    context: RequestContext
    key: IdempotencyKey
    collection: str
    owner: str = ""
    chosen: str | None = None
    _joined: dict[str, OpenBatch] = field(default_factory=dict, init=False)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Join the batch that the client chose, and leave all batches in the end.

        Raises BatchConflict or BatchCancelled if the request may not add to the chosen batch.
        """
        if self.chosen is not None:
            self.of(self.collection)
        try:
            yield
        finally:
            for batch in self._joined.values():
                # Without Redis the batch ends when the lease of this request expires.
                with suppress(MatchError):
                    self.ledger.leave_batch(batch)

    def of(self, collection: str) -> OpenBatch:
        """Return the batch of a collection; raises BatchConflict if the client chose that of another."""
        if collection not in self._joined:
            if self.chosen is not None and collection != self.collection:
                raise BatchConflict("the batch is of another collection than the line", field=HEADER)
            self._joined[collection] = self.batches.join(
                self.chosen or self._own_id(collection),
                owner=self.owner,
                collection=collection,
                request_id=self.context.request_id,
                callback_url=self.context.callback_url,
            )
        return self._joined[collection]

    @property
    def headers(self) -> Mapping[str, str]:
        """The header of the reply: the id of the batch of the request's collection, if it exists."""
        joined = self._joined.get(self.collection)
        if joined is not None:
            return {HEADER: joined.id}
        return {HEADER: self._own_id(self.collection)} if self.key.value is not None else {}

    def _own_id(self, collection: str) -> str:
        return self.key.batch_id(collection) or secrets.token_hex(ID_BYTES)
