"""The folder of prometheus-client's multiprocess mode: each process counts in its own files, a scrape adds them up.

`python -m api` calls these functions from gunicorn's hooks, as https://prometheus.github.io/client_python/multiprocess/
describes. prometheus-client reads the variable when it is imported, so this module imports it late.
"""

import os
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir, mkdtemp

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder is created by us, or the next place is tried


def create_metrics_folder(address: str) -> None:
    """Create an empty folder for the API that listens on `address`, and name it in the environment.

    The address must be bound already: files of another run with the same address are then left over, and deleted.
    """
    os.environ[VARIABLE] = str(_create(f"match-metrics-{address}"))


def remove_metrics_folder() -> None:
    """Delete the folder; the counts end with the API."""
    rmtree(os.environ.pop(VARIABLE), ignore_errors=True)


def mark_process_dead(pid: int) -> None:
    """Drop the live gauges of a dead process; its counters and histograms stay in the sums."""
    from prometheus_client import multiprocess  # noqa: PLC0415 - the variable must be set first

    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no types


def _create(name: str) -> Path:
    """Return a new folder in shared memory, else in the folder for temporary files."""
    for parent in (SHARED_MEMORY, Path(gettempdir())):
        folder = parent / name
        # Another user's folder or a link is neither deleted nor used.
        with suppress(OSError):
            if folder.exists():
                rmtree(folder)
            folder.mkdir(mode=0o700)
            return folder
    return Path(mkdtemp(prefix=f"{name}-"))
