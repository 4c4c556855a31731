"""Uploaded bytes between the doors: the message carries a claim check, one of these places the bytes."""

from common.uploads.base import UNCLAIMED_S, Uploads
from common.uploads.folder import FolderUploads
from common.uploads.redis import RedisUploads

__all__ = ["UNCLAIMED_S", "FolderUploads", "RedisUploads", "Uploads"]
