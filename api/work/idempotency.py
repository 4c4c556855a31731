"""What is sent twice is done once: the ids of tasks by their sender's own key, and what tells orders apart.

The tasks of a request with an `Idempotency-Key` have ids that follow from the key and their place in the request. So
the ledger itself says whether one is there already, in the step that writes it: whoever sends the same again gets the
same tasks, at whatever process, at the same moment or after a connection that broke. Places count from 0 in every form
of an add, so that a key which comes again with another form meets the tasks of the first, as those of another order.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Response, g

from common.errors import InputError
from common.queue.ledger import Ledger
from common.queue.ledger_scripts import REMEMBERED_S

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
# As many as those of other tasks have.
ID_DIGITS = 32


class IdempotencyConflict(InputError):
    """The key came before, with another order."""

    code = "idempotency_conflict"

    def __init__(self) -> None:
        super().__init__(f"{HEADER} was already used with a different request", field=HEADER)


@dataclass(frozen=True, slots=True)
class Once:
    """A request's own key; without one, its tasks have ids that nobody knows before."""

    key: str | None
    owner: str = ""

    def task_id(self, number: int) -> str:
        """Return the id of the task with this number in the request, the first being 0; empty for any."""
        return self._digest(f"{number}") if self.key is not None else ""

    def task_ids(self, numbers: Sequence[int]) -> list[str]:
        """Return the ids that may be known already."""
        return [self.task_id(number) for number in numbers] if self.key is not None else []

    def seen_before(self, ledger: Ledger) -> bool:
        """Say whether the key came before, and note that it came."""
        return self.key is not None and not ledger.lease(f"key:{self._digest('')}", for_s=REMEMBERED_S)

    def _digest(self, ending: str) -> str:
        return hashlib.sha256(f"{self.owner}\0{self.key}\0{ending}".encode()).hexdigest()[:ID_DIGITS]


def once(key: str | None) -> Once:
    """Return the key of the request that is being answered; those of other API keys are others."""
    return Once(key, g.key.name if g.key is not None else "")


def marked(response: Response, *, replayed: bool) -> Response:
    """Return the response; one that tells of what came before says so."""
    if replayed:
        response.headers[REPLAYED] = "true"
    return response
