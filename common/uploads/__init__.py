"""Uploads: image bytes from the API to a worker. A task contains an upload's id, and one of these stores its bytes."""

from common.uploads.base import UPLOAD_TTL_S, Uploads
from common.uploads.folder import FolderUploads
from common.uploads.redis import RedisUploads

__all__ = ["UPLOAD_TTL_S", "FolderUploads", "RedisUploads", "Uploads"]
