"""Idempotency keys: the ids of a request's tasks follow from the client's key.

The ledger finds an existing task in the step that writes it. A request that is sent twice therefore creates its tasks
once: on any process, at the same moment, or after a broken connection. Items are numbered from 0 in every form of an
add, so the same key in another form finds the tasks of the first form and conflicts with them.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from api.errors import ERRORS
from common.errors import InputError
from common.queue.leases import Leases
from common.queue.ledger import IDEMPOTENCY_KEEP_S

HEADER = "Idempotency-Key"
# As many as random task ids have.
ID_DIGITS = 32


class IdempotencyConflict(InputError):
    """The key was used before with a different request."""

    code = "idempotency_conflict"

    def __init__(self) -> None:
        super().__init__(ERRORS[self.code].text, field=HEADER)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's key; `owner` is the name of its API key, since each API key has keys of its own.

    `value` is None for a request without a key: its tasks have random ids.
    """

    value: str | None
    owner: str = ""

    def task_id(self, number: int) -> str:
        """Return the task id of the item with this number, counted from 0; empty where it is random."""
        return "" if self.value is None else self._digest(f"{number}")

    def task_ids(self, numbers: Iterable[int]) -> list[str]:
        """Return the ids of tasks that may exist already."""
        return [] if self.value is None else [self.task_id(number) for number in numbers]

    def batch_id(self, collection: str) -> str:
        """Return the id of the batch of this collection; empty where it is random."""
        return "" if self.value is None else self._digest(f"batch {collection}")

    def is_replay(self, leases: Leases) -> bool:
        """Return whether the key was used before, and record that it is used now."""
        return self.value is not None and not leases.acquire(f"key:{self._digest('')}", for_s=IDEMPOTENCY_KEEP_S)

    def _digest(self, suffix: str) -> str:
        return hashlib.sha256(f"{self.owner}\0{self.value}\0{suffix}".encode()).hexdigest()[:ID_DIGITS]
