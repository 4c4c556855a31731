"""Programs that are kept running: one that ends by itself is started again."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from common.startup import WRONG_SETTING

# A program that ends by itself is started again, but not in a busy loop.
RESTART_PAUSE_S = 1.0
# Above the workers' own grace: they finish what they hold.
STOP_WITHIN_S = 60.0
ROOT = Path(__file__).resolve().parent.parent


class CannotStart(Exception):
    """The stack cannot start here; the text says in one line what to do."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the stack: its name in messages and in its log's file name, and its command line."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


class Running:
    """One program, started again whenever it ends by itself, unless its first start shows a wrong setting."""

    def __init__(self, program: Program, logs: Path) -> None:
        self.program = program
        self._log = logs / f"{program.name}.log"
        self._process = self._start()
        self._starts = 1
        self._ended: float | None = None

    @property
    def pid(self) -> int:
        """The process that runs now, or ran last."""
        return self._process.pid

    def look(self) -> None:
        """Start the program again when it has ended and its pause is over.

        Raises CannotStart where its first start ended over a wrong setting: the next would fare no better.
        """
        if self._process.poll() is None:
            return
        if self._process.returncode == WRONG_SETTING and self._starts == 1:
            raise CannotStart(last_line(self._log) or f"{self.program.name} has a wrong setting")
        if self._ended is None:
            self._ended = monotonic()
            say(f"{self.program.name} ended with status {self._process.returncode}, see {self._log}")
        elif monotonic() - self._ended >= RESTART_PAUSE_S:
            self._ended = None
            self._process = self._start()
            self._starts += 1

    def ask_to_stop(self) -> None:
        """Ask the program to finish what it holds and end."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self, *, within_s: float) -> None:
        """Return when the program has ended, killed if it takes longer than `within_s`."""
        try:
            self._process.wait(max(0.1, within_s))
        except subprocess.TimeoutExpired:
            say(f"{self.program.name} did not stop in time and is killed")
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C reaches this program alone, which stops the others in order.
            return subprocess.Popen(
                self.program.command,
                cwd=ROOT,
                env={**os.environ, **self.program.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def last_line(log: Path) -> str:
    """Return what a program said last."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def say(line: str) -> None:
    """Tell the person at the terminal, if somebody is still there."""
    with suppress(OSError):
        print(line, flush=True)


def stop_all(running: Sequence[Running]) -> None:
    """Stop every program; what they hold is finished or goes back into the queue."""
    deadline = monotonic() + STOP_WITHIN_S
    for one in running:
        one.ask_to_stop()
    for one in running:
        one.stop(within_s=deadline - monotonic())
