"""Running programs of a cluster, each with a log file."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from dev.cluster.programs import Program

STOP_WITHIN_S = 15.0
POLL_S = 0.2
LOG_TAIL_CHARS = 3000


class NotStarted(Exception):
    """A program exited or did not become ready in time; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started program."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def log_tail(self) -> str:
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-LOG_TAIL_CHARS:]


@contextlib.contextmanager
def running(
    program: Program, arguments: Sequence[str], *, logs: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run a program during the `with`, with its output in `<name>.log`; at the end SIGTERM, then SIGKILL."""
    path = logs / f"{program.name}.log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            [*_end_with_parent(), str(program.path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=logs,
            env=os.environ | (environment or {}),
            # Ctrl-C in the terminal must only reach this process, which stops the programs in reverse order.
            start_new_session=True,
        )
    try:
        yield Running(program.name, process, path)
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(is_ready: Callable[[], bool], started: Running, *, within_s: float) -> None:
    """Wait until the program is ready. Raises NotStarted if it exits or exceeds the limit."""
    deadline = monotonic() + within_s
    while not is_ready():
        if started.process.poll() is not None or monotonic() > deadline:
            raise NotStarted(f"{started.name} did not start:\n{started.log_tail()}")
        sleep(POLL_S)


def _end_with_parent() -> list[str]:
    """Return a command prefix that kills the program when this process is killed; empty without setpriv."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
