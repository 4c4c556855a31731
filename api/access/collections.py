"""The collections that the current request may use."""

from flask import g

from api.collection_errors import UnknownCollection


def is_anonymous() -> bool:
    """Return whether the request lacks the API key without which it reads and changes nothing."""
    return not g.is_open and g.key is None


def is_allowed(collection: str) -> bool:
    """Return whether the current request may use the collection."""
    return bool(g.is_open or (g.key is not None and g.key.allows(collection)))


def may_use_all() -> bool:
    """Return whether the current request is not limited to some collections."""
    return bool(g.is_open or (g.key is not None and g.key.collections is None))


def check_allowed(collection: str, *, field: str = "collection") -> None:
    """Raise UnknownCollection unless the current request may use the collection."""
    if not is_allowed(collection):
        raise UnknownCollection(field=field)
