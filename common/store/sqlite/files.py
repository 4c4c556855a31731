"""The use of the disk by the files of the embedded store."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from common.errors import StoreUnavailable
from common.store.base import Disk


def disk_of(path: Path) -> Disk:
    """Return the bytes of the file `path` and of those whose names continue its own with a hyphen."""
    try:
        return Disk(sum(_sizes(path)), shutil.disk_usage(path.parent).free)
    except OSError as error:
        raise StoreUnavailable(f"the size of {path.name} is unknown: {error.strerror}") from error


def _sizes(path: Path) -> Iterator[int]:
    for beside in path.parent.iterdir():
        if beside.name == path.name or beside.name.startswith(f"{path.name}-"):
            for file in (beside, *beside.rglob("*")):
                # Files are deleted at any time.
                with suppress(FileNotFoundError):
                    yield file.stat().st_size
