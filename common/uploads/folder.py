"""Uploads in a folder that API and workers share; a file's modification time is the time at which it ends."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import monotonic, time

from common.errors import QueueUnavailable
from common.uploads.base import CROWDED_SHARE, UNCLAIMED_S, is_claim, new_claim, no_room

# 2100-01-01: the end of what is kept.
NEVER = 4_102_444_800
# The folder is counted anew after so long; between, this process knows of its own additions alone.
COUNTED_FOR_S = 5.0
# While it is written a file has this ending, and its modification time is what it is everywhere.
PART = ".part"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class FolderUploads:
    """Uploads as files; those that are being written, and those that have ended, are none yet and none any more.

    `max_bytes` is the most that may be held; several processes may exceed it by what they put within COUNTED_FOR_S.
    `unclaimed_s` is how long bytes live that are never kept.
    """

    def __init__(self, folder: Path, *, max_bytes: int, unclaimed_s: float = UNCLAIMED_S) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._unclaimed_s = unclaimed_s
        self._lock = Lock()
        self._counted = float("-inf")
        self._bytes = 0

    def put(self, data: bytes) -> str:
        """Store `data` for a day and return its claim check; it is on disk then."""
        if self.held_bytes() + len(data) > self._max_bytes:
            raise no_room()
        claim = new_claim()
        with _errors():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(claim, data)
        with self._lock:
            self._bytes += len(data)
        return claim

    def keep(self, *claims: str) -> None:
        """Let the bytes stay until they are dropped."""
        self._end_at(self.there(claims), NEVER)

    def get(self, claim: str) -> bytes | None:
        """Return the bytes, or None when they are gone."""
        if not self.there([claim]):
            return None
        with _errors(), suppress(FileNotFoundError):
            return self._path(claim).read_bytes()
        return None

    def there(self, claims: Sequence[str]) -> set[str]:
        """Return those of the claims whose bytes are there."""
        now = time()
        return {claim for claim in claims if is_claim(claim) and self._ends(claim) > now}

    def drop(self, claims: Sequence[str], *, after_s: float = 0) -> None:
        """Forget the bytes, at once or `after_s` seconds from now."""
        if after_s:
            self._end_at(self.there(claims), time() + after_s)
            return
        for claim in filter(is_claim, claims):
            with _errors():
                self._path(claim).unlink(missing_ok=True)

    def held_bytes(self) -> int:
        """Return how many bytes are held, as they were within the last COUNTED_FOR_S."""
        with self._lock:
            if monotonic() - self._counted > COUNTED_FOR_S:
                self._bytes = sum(found.st_size for _, found in self._files())
                self._counted = monotonic()
            return self._bytes

    def is_crowded(self) -> bool:
        """Say whether there soon will be no room."""
        return self.held_bytes() > CROWDED_SHARE * self._max_bytes

    def purge(self) -> None:
        """Remove what has ended, and what a process left that died while it wrote."""
        now = time()
        for path, found in self._files():
            lives_s = self._unclaimed_s if path.suffix == PART else 0
            if found.st_mtime + lives_s <= now:
                with _errors():
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _write(self, claim: str, data: bytes) -> None:
        path = self._path(claim)
        part = path.with_suffix(PART)
        try:
            # For this user alone, and never through a name that is there already.
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                ends = time() + self._unclaimed_s
                os.utime(file.fileno(), (ends, ends))
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._sync_folder()

    def _sync_folder(self) -> None:
        """Make the new name last: a file's own fsync does not."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _ends(self, claim: str) -> float:
        """Return when the file ends, in seconds since 1970; 0 for one that is not there.

        Where the folder itself is not there, a share that is not mounted for instance, nobody knows.
        """
        with _errors(), suppress(FileNotFoundError):
            return self._path(claim).stat().st_mtime
        if not self._folder.is_dir():
            raise QueueUnavailable("the folder of the uploads is not there")
        return 0

    def _end_at(self, claims: set[str], ends: float) -> None:
        for claim in claims:
            with _errors(), suppress(FileNotFoundError):
                os.utime(self._path(claim), (ends, ends))

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield our files and what is known of each."""
        with _errors(), suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name.removesuffix(PART)
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if is_claim(name) and stat.S_ISREG(found.st_mode):
                        yield Path(entry.path), found

    def _path(self, claim: str) -> Path:
        return self._folder / claim


@contextmanager
def _errors() -> Iterator[None]:
    """Turn the file system's errors into ours, save that a file is not there."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room() from error
        raise QueueUnavailable("the folder of the uploads cannot be used") from error
