"""The interface of every store of uploaded bytes."""

import re
import secrets
from collections.abc import Sequence
from typing import Protocol

from common.errors import Overloaded
from common.redis.client import RETRY_AFTER_S

# How long an upload exists that was never kept: an API process died before it accepted the task. So long because it may
# have died between accepting the task and `keep`, and the task may then wait behind a backlog.
UNKEPT_S = 86_400
# Of the most bytes: from here on uploads of older failures are evicted.
NEARLY_FULL_SHARE = 0.9

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


class Uploads(Protocol):
    """Bytes by id, for API and workers on any machine.

    Every method raises QueueUnavailable when the store cannot be reached, and QueueError when it refuses. An unknown id
    is not an error.
    """

    def put(self, data: bytes) -> str:
        """Store `data` for a day, or until it is dropped once `keep` was called, and return its id.

        Raises Overloaded when there is no space for it.
        """

    def keep(self, *upload_ids: str) -> None:
        """Keep the bytes until they are dropped: accepted tasks need them."""

    def get(self, upload_id: str) -> bytes | None:
        """Return the bytes, or None where they do not exist."""

    def existing(self, upload_ids: Sequence[str]) -> set[str]:
        """Return those of the ids whose bytes exist."""

    def drop(self, upload_ids: Sequence[str], *, after_s: float = 0) -> None:
        """Delete the bytes, at once or `after_s` seconds from now."""

    def held_bytes(self) -> int:
        """Return how many bytes are stored, including those that expire."""

    def is_nearly_full(self) -> bool:
        """Return whether the space has run out, or soon will."""

    def purge(self) -> None:
        """Delete what has expired, where the store does not do so by itself; to be called regularly."""

    def close(self) -> None:
        """Close connections."""


def new_upload_id() -> str:
    """Return an id that nobody can guess."""
    return secrets.token_hex(16)


def is_upload_id(text: str) -> bool:
    """Return whether this is the id of an upload, existing or not."""
    return _UPLOAD_ID.fullmatch(text) is not None


def out_of_space() -> Overloaded:
    """Return the error of an upload for which there is no space."""
    return Overloaded("too many bytes of uploads are waiting", retry_after=RETRY_AFTER_S)
