"""Errors of requests that name a collection."""

from api.errors import ERRORS
from common.errors import InputError

FIELD = "collection"


class UnknownCollection(InputError):
    """The collection does not exist, or the API key may not use it: the reply is the same."""

    code = "unknown_collection"

    def __init__(self, *, field: str = FIELD) -> None:
        super().__init__(f"{field}: {ERRORS[self.code].text}", field=field)


class QuotaExceeded(InputError):
    """The collection has as many images as its quota allows."""

    code = "quota_exceeded"

    def __init__(self) -> None:
        super().__init__(f"{FIELD}: {ERRORS[self.code].text}", field=FIELD)


class TooManyCollections(InputError):
    """No further collection may be created."""

    code = "too_many_collections"

    def __init__(self, max_collections: int, *, field: str = FIELD) -> None:
        message = f"{field}: at most {max_collections:,} collections may exist (MATCH_MAX_COLLECTIONS)"
        super().__init__(message, field=field)
