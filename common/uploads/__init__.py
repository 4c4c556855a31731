"""Uploaded bytes on their way from the API to a worker: a task holds the upload's id, one of these stores the bytes."""

from common.uploads.base import UNKEPT_S, Uploads
from common.uploads.folder import FolderUploads
from common.uploads.redis import RedisUploads

__all__ = ["UNKEPT_S", "FolderUploads", "RedisUploads", "Uploads"]
