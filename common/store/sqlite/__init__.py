"""The embedded store: one SQLite file, shared by every process of a machine, and an exact scan in memory."""

from common.store.sqlite.store import SqliteStore
from common.store.sqlite.thumbnails import SqliteThumbnails

__all__ = ["SqliteStore", "SqliteThumbnails"]
