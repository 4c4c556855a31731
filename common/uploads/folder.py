"""Uploads in a folder that API and workers share; a file's modification time is the time of its expiry."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import monotonic, time

from common.errors import QueueUnavailable
from common.uploads.base import NEARLY_FULL_SHARE, UPLOAD_TTL_S, is_upload_id, new_upload_id, out_of_space

# 2100-01-01: the expiry of kept uploads.
NEVER = 4_102_444_800
# Time between two counts of the folder; meanwhile this process adds only its own uploads.
COUNTED_FOR_S = 5.0
# Suffix of a file that is being written; its modification time is that of the last write.
PART = ".part"
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}


class FolderUploads:
    """Uploads as files; files that are being written and expired files are not uploads.

    `max_bytes` limits the stored bytes; several processes may exceed it by their uploads within COUNTED_FOR_S. `ttl_s`
    is the time to live before `keep`.
    """

    def __init__(self, folder: Path, *, max_bytes: int, ttl_s: float = UPLOAD_TTL_S) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._lock = Lock()
        self._counted = float("-inf")
        self._bytes = 0

    def put(self, data: bytes) -> str:
        """Store `data` durably for `ttl_s` and return its id."""
        if self.stored_bytes() + len(data) > self._max_bytes:
            raise out_of_space()
        upload_id = new_upload_id()
        with _errors():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(upload_id, data)
        with self._lock:
            self._bytes += len(data)
        return upload_id

    def keep(self, *upload_ids: str) -> None:
        """Keep the bytes until they are dropped."""
        self._expire_at(self.existing(upload_ids), NEVER)

    def get(self, upload_id: str) -> bytes | None:
        """Return the bytes, or None if they do not exist."""
        if not self.existing([upload_id]):
            return None
        with _errors(), suppress(FileNotFoundError):
            return self._path(upload_id).read_bytes()
        return None

    def existing(self, upload_ids: Sequence[str]) -> set[str]:
        """Return the ids whose bytes exist."""
        now = time()
        return {upload_id for upload_id in upload_ids if is_upload_id(upload_id) and self._expires_at(upload_id) > now}

    def drop(self, upload_ids: Sequence[str], *, after_s: float = 0) -> None:
        """Delete the bytes, at once or `after_s` seconds from now."""
        if after_s:
            self._expire_at(self.existing(upload_ids), time() + after_s)
            return
        for upload_id in filter(is_upload_id, upload_ids):
            with _errors():
                self._path(upload_id).unlink(missing_ok=True)

    def stored_bytes(self) -> int:
        """Return the number of stored bytes, counted at most COUNTED_FOR_S ago."""
        with self._lock:
            if monotonic() - self._counted > COUNTED_FOR_S:
                self._bytes = sum(status.st_size for _, status in self._files())
                self._counted = monotonic()
            return self._bytes

    def is_nearly_full(self) -> bool:
        """Return whether the space has run out, or soon will."""
        return self.stored_bytes() > NEARLY_FULL_SHARE * self._max_bytes

    def purge(self) -> None:
        """Delete expired files, and unfinished files of dead processes."""
        now = time()
        for path, status in self._files():
            lives_s = self._ttl_s if path.suffix == PART else 0
            if status.st_mtime + lives_s <= now:
                with _errors():
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _write(self, upload_id: str, data: bytes) -> None:
        path = self._path(upload_id)
        part = path.with_suffix(PART)
        try:
            # O_EXCL and 0600: a new file that only this user can read.
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                expires_at = time() + self._ttl_s
                os.utime(file.fileno(), (expires_at, expires_at))
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._sync_folder()

    def _sync_folder(self) -> None:
        """Make the new name durable; the fsync of the file does not."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _expires_at(self, upload_id: str) -> float:
        """Return the expiry of the file, in seconds since 1970; 0 for a file that does not exist.

        Raises QueueUnavailable if the folder itself does not exist, for instance because a share is not mounted.
        """
        with _errors(), suppress(FileNotFoundError):
            return self._path(upload_id).stat().st_mtime
        if not self._folder.is_dir():
            raise QueueUnavailable("the folder of the uploads does not exist")
        return 0

    def _expire_at(self, upload_ids: set[str], at: float) -> None:
        for upload_id in upload_ids:
            with _errors(), suppress(FileNotFoundError):
                os.utime(self._path(upload_id), (at, at))

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the files of uploads, each with its status."""
        with _errors(), suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name.removesuffix(PART)
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if is_upload_id(name) and stat.S_ISREG(status.st_mode):
                        yield Path(entry.path), status

    def _path(self, upload_id: str) -> Path:
        return self._folder / upload_id


@contextmanager
def _errors() -> Iterator[None]:
    """Raise the file system's errors as QueueError, except FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            raise out_of_space() from error
        raise QueueUnavailable("the folder of the uploads cannot be used") from error
