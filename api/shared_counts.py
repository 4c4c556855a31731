"""Counts that all processes of the server keep together, so that a scrape of any of them tells those of all.

Each process counts in files of its own, in memory. They go by places, not by processes: whoever takes the place of a
process that died goes on with its counts, so that none is lost and no files are left behind.
"""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector

# The one way to tell prometheus_client's files where to be.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


@contextmanager
def counted_together() -> Iterator[None]:
    """Let processes that are forked inside the `with` count together; when this one leaves it, the counts are gone."""
    in_memory = sys.platform == "linux" and os.access(SHARED_MEMORY, os.W_OK)
    folder = mkdtemp(prefix="match-counts-", dir=SHARED_MEMORY if in_memory else None)
    os.environ[FOLDER] = folder
    ours = os.getpid()
    try:
        yield
    finally:
        # A process that was forked ends here as well.
        if os.getpid() == ours:
            rmtree(folder, ignore_errors=True)
            del os.environ[FOLDER]


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
