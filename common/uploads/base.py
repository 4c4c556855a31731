"""The interface of a store of uploads."""

import re
import secrets
from collections.abc import Sequence
from typing import Protocol

from common.errors import Overloaded
from common.redis.client import RETRY_AFTER_S

# Time to live of an upload before `keep`. An API process may die before it accepts the task; then the upload expires.
# It may also die between accepting the task and `keep`; the long time lets that task wait behind a backlog.
UPLOAD_TTL_S = 86_400
# Share of the maximum bytes at which the eviction of uploads of older failures begins.
NEARLY_FULL_SHARE = 0.9

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


class Uploads(Protocol):
    """Bytes by id, for API and workers on any machine.

    Every method raises QueueUnavailable when the store cannot be reached and QueueError when it rejects the command. An
    unknown id is not an error.
    """

    def put(self, data: bytes) -> str:
        """Store `data` for UPLOAD_TTL_S and return its id.

        Raises Overloaded when there is no space for it.
        """

    def keep(self, *upload_ids: str) -> None:
        """Keep the bytes without a time to live, until they are dropped: accepted tasks need them."""

    def get(self, upload_id: str) -> bytes | None:
        """Return the bytes, or None if they do not exist."""

    def existing(self, upload_ids: Sequence[str]) -> set[str]:
        """Return the ids whose bytes exist."""

    def drop(self, upload_ids: Sequence[str], *, after_s: float = 0) -> None:
        """Delete the bytes, at once or `after_s` seconds from now."""

    def stored_bytes(self) -> int:
        """Return the number of stored bytes, including those that will expire."""

    def is_nearly_full(self) -> bool:
        """Return whether the space has run out, or soon will."""

    def purge(self) -> None:
        """Delete expired uploads if the store does not do so by itself; to be called regularly."""

    def close(self) -> None:
        """Close connections."""


def new_upload_id() -> str:
    """Return a random id that cannot be guessed."""
    return secrets.token_hex(16)


def is_upload_id(text: str) -> bool:
    """Return whether this has the form of an upload's id."""
    return _UPLOAD_ID.fullmatch(text) is not None


def out_of_space() -> Overloaded:
    """Return the error of an upload for which there is no space."""
    return Overloaded("too many bytes of uploads are waiting", retry_after=RETRY_AFTER_S)
