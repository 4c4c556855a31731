"""Programs that run beside each other, each with a log."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from dev.cluster.programs import Program

END_WITHIN_S = 15.0
ASK_EVERY_S = 0.2
LAST_WORDS = 3000


class NotStarted(Exception):
    """A program ended, or did not answer in time; the text has the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A program that was started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-LAST_WORDS:]


@contextlib.contextmanager
def running(
    program: Program, arguments: Sequence[str], *, logs: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run a program during the `with`; it writes to `<name>.log`. It is asked to end, and killed when it does not."""
    path = logs / f"{program.name}.log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            [*_ends_with_us(), str(program.path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=logs,
            env=os.environ | (environment or {}),
            # Ctrl-C in the terminal is for us: we end them, the first last.
            start_new_session=True,
        )
    try:
        yield Running(program.name, process, path)
    finally:
        process.terminate()
        try:
            process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(answers: Callable[[], bool], started: Running, *, within_s: float) -> None:
    """Return when the program answers; raises NotStarted when it ends or is too late."""
    deadline = monotonic() + within_s
    while not answers():
        if started.process.poll() is not None or monotonic() > deadline:
            raise NotStarted(f"{started.name} did not start:\n{started.last_words()}")
        sleep(ASK_EVERY_S)


def _ends_with_us() -> list[str]:
    """Return what makes a program end when we are killed before we can end it, where the system knows how."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
