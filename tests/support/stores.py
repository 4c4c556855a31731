"""Stores, and what is in them."""

from common.store.base import Store
from support.waiting import wait_until


def wait_for_stored(store: Store, count: int) -> None:
    """Return when at least so many images are stored."""
    wait_until(lambda: store.count() >= count, f"{count} are stored")
