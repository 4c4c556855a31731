"""A worker that writes the CPU seconds of its stages and threads to a file: `python staged_worker.py FILE OPTION …`.

The options are those of `python -m workers`. Each stage is a function; its CPU is that of the calling thread, with all
that it calls. The file is replaced each half second.
"""

import json
import re
import runpy
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from urllib3 import HTTPConnectionPool

from common.decoding.pool import DecoderPool
from common.net.fetch import Fetcher
from common.queue.ledger import Ledger
from workers.pipeline import Pipeline
from workers.writer import Writer

EVERY_S = 0.5
STAGES: dict[str, tuple[type, str]] = {
    "task": (Pipeline, "run"),
    "ledger's begin": (Ledger, "begin"),
    "download": (Fetcher, "fetch"),
    "urllib3's urlopen": (HTTPConnectionPool, "urlopen"),
    "decoder exchange": (DecoderPool, "decode"),
    "wait for the writer": (Writer, "write"),
}


class Stage:
    """The sum of a function's CPU seconds over all threads."""

    def __init__(self, owner: type, name: str) -> None:
        self._lock = threading.Lock()
        self.cpu_s = 0.0
        setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on unchanged
            started = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - started
                with self._lock:
                    self.cpu_s += spent

        return timed


def threads_s() -> dict[str, float]:
    """Return the CPU seconds of the living threads by name, and of a pool by the name of the pool."""
    spent: dict[str, float] = {}
    for thread in threading.enumerate():
        path = Path(f"/proc/self/task/{thread.native_id}/schedstat")
        name = re.sub(r"[-_]?\d+.*", "", thread.name)
        spent[name] = spent.get(name, 0.0) + int(path.read_text().split()[0]) / 1e9
    return spent


def write(file: Path, stages: dict[str, Stage]) -> None:
    written = file.with_suffix(".new")
    while True:
        times = {"stages": {name: stage.cpu_s for name, stage in stages.items()}, "threads": threads_s()}
        written.write_text(json.dumps(times))
        written.replace(file)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    stages = {name: Stage(owner, function) for name, (owner, function) in STAGES.items()}
    threading.Thread(target=write, args=(Path(sys.argv.pop(1)), stages), name="cpu-times", daemon=True).start()
    runpy.run_module("workers", run_name="__main__", alter_sys=True)
