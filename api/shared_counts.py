"""Counts that all processes of the server keep together, so that a scrape of any of them tells those of all.

Each process counts in files of its own, in memory. They go by places, not by processes: whoever takes the place of a
process that died goes on with its counts, so that none is lost and no files are left behind.
"""

import fcntl
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir, mkdtemp

from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector

# The one way to tell prometheus_client's files where to be.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "match-counts-"
LOCK = "lock"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


@contextmanager
def counted_together() -> Iterator[None]:
    """Let processes that are forked inside the `with` count together; when this one leaves it, the counts are gone.

    So are, from its begin, those of servers that were killed.
    """
    in_memory = sys.platform == "linux" and os.access(SHARED_MEMORY, os.W_OK)
    beside = SHARED_MEMORY if in_memory else Path(gettempdir())
    _clear(beside)
    folder = Path(mkdtemp(prefix=f".{PREFIX}", dir=beside))
    ours = os.getpid()
    # Held by all who are forked, to the death of the last.
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Under the name by which others find it only now that it is held.
        folder = folder.rename(beside / folder.name.removeprefix("."))
        os.environ[FOLDER] = str(folder)
        try:
            yield
        finally:
            # A process that was forked ends here as well.
            if os.getpid() == ours:
                rmtree(folder, ignore_errors=True)
                del os.environ[FOLDER]


def _clear(beside: Path) -> None:
    """Remove the counts that nobody holds any more."""
    for folder in beside.glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            rmtree(folder, ignore_errors=True)


class Places:
    """Which process counts where: known to the one that forks them, and so to each of them."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}

    def give(self, who: int, living: Collection[int]) -> None:
        """Give the first place that none of the living has to one that is about to be forked."""
        self._places = {one: place for one, place in self._places.items() if one in living}
        taken = set(self._places.values())
        self._places[who] = next(place for place in count() if place not in taken)

    def of(self, who: int) -> int:
        """Return its place."""
        return self._places[who]


def count_at(place: int) -> None:
    """Let this process count at its place; to be done before it makes its first metric."""
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]  # it has no types


def registry_of_all() -> CollectorRegistry | None:
    """Return a registry of the counts of all processes, None where each keeps its own."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return None
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry
