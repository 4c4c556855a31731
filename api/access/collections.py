"""The collections that the API key of the current request may use."""

from flask import g

from api.collection_errors import UnknownCollection


def is_allowed(collection: str) -> bool:
    """Return whether the current request may use the collection; without API keys it may use all."""
    return g.key is None or bool(g.key.allows(collection))


def check_allowed(collection: str, *, field: str = "collection") -> None:
    """Raise UnknownCollection unless the current request may use the collection."""
    if not is_allowed(collection):
        raise UnknownCollection(field=field)
