"""What a place for uploaded bytes promises."""

import re
import secrets
from collections.abc import Sequence
from typing import Protocol

from common.errors import Overloaded
from common.redis.client import RETRY_AFTER_S

# What an API leaves behind that dies before it accepts the job goes after this long. It is long because of the other
# case: one that dies between accepting and `keep`, whose task then waits behind a backlog.
UNCLAIMED_S = 86_400
# Of the most bytes: from here on older failures make room for new work.
CROWDED_SHARE = 0.9

_CLAIM = re.compile(r"[0-9a-f]{32}")


class Uploads(Protocol):
    """Bytes by claim check, for API and workers on any machine.

    Every method raises QueueUnavailable when the place cannot be reached, and QueueError when it refuses. An unknown
    claim is no error.
    """

    def put(self, data: bytes) -> str:
        """Store `data` for a day and return its claim check; `keep` makes it stay.

        Raises Overloaded when there is no room for it.
        """

    def keep(self, *claims: str) -> None:
        """Let the bytes stay until they are dropped: jobs that were accepted need them."""

    def get(self, claim: str) -> bytes | None:
        """Return the bytes, or None when they are gone."""

    def there(self, claims: Sequence[str]) -> set[str]:
        """Return those of the claims whose bytes are there."""

    def drop(self, claims: Sequence[str], *, after_s: float = 0) -> None:
        """Forget the bytes, at once or `after_s` seconds from now."""

    def held_bytes(self) -> int:
        """Return how many bytes are held, those on the way out included."""

    def is_crowded(self) -> bool:
        """Say whether there soon will be no room, or is none already."""

    def purge(self) -> None:
        """Forget what has ended, as far as the place does not do so by itself; to be called now and then."""

    def close(self) -> None:
        """Give back connections."""


def new_claim() -> str:
    """Return a claim check that nobody can guess."""
    return secrets.token_hex(16)


def is_claim(text: str) -> bool:
    """Say whether this can be a claim check at all."""
    return _CLAIM.fullmatch(text) is not None


def no_room() -> Overloaded:
    """Return the error of uploads that are more than may be held."""
    return Overloaded("too many bytes of uploads are waiting", retry_after=RETRY_AFTER_S)
