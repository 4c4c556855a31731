"""Supervised programs: one that exits unexpectedly is restarted."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from common.startup import WRONG_SETTING

# Between exit and restart, so that a program that always fails does not keep the CPU busy.
RESTART_PAUSE_S = 1.0
# A program that ran for this time had started.
STARTED_AFTER_S = 20.0
# Longer than the workers' own grace period, in which they finish their tasks.
STOP_WITHIN_S = 60.0
ROOT = Path(__file__).resolve().parent.parent


class CannotStart(Exception):
    """The stack cannot start; the message has the reason and the remedy in one line."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the stack: its name in messages and log file names, its command line, its extra environment."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


class Running:
    """A supervised process. An invalid setting at its first start is fatal; after any other exit it is restarted.

    With `tries`, the last of so many exits in a row, each soon after a start, is fatal too.
    """

    def __init__(self, program: Program, logs: Path, *, tries: int | None = None) -> None:
        self.program = program
        self._log = logs / f"{program.name}.log"
        self._tries = tries
        self._early_exits = 0
        self._process = self._start()
        self._starts = 1
        self._exited_at: float | None = None

    @property
    def pid(self) -> int:
        """The process id of the current process, or of the last one."""
        return self._process.pid

    def restart_if_exited(self) -> None:
        """Restart the program if it has exited and the pause is over.

        Raises CannotStart when a restart would fail as well.
        """
        if self._process.poll() is None:
            return
        if self._process.returncode == WRONG_SETTING and self._starts == 1:
            raise CannotStart(self._last_line() or f"{self.program.name} has an invalid setting")
        if self._exited_at is None:
            self._exited_at = monotonic()
            self._report_exit(lasted_s=self._exited_at - self._started_at)
        elif monotonic() - self._exited_at >= RESTART_PAUSE_S:
            self._exited_at = None
            self._process = self._start()
            self._starts += 1

    def ask_to_stop(self) -> None:
        """Send SIGTERM: the program finishes its work and exits."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self, *, within_s: float) -> None:
        """Wait for the program to exit, and kill it after `within_s`."""
        try:
            self._process.wait(max(0.1, within_s))
        except subprocess.TimeoutExpired:
            say(f"{self.program.name} did not stop in time and was killed")
            self._process.kill()
            self._process.wait()

    def _report_exit(self, *, lasted_s: float) -> None:
        line = f"{self.program.name} exited with status {self._process.returncode}"
        if last := self._last_line():
            line += f": {last}"
        self._early_exits = self._early_exits + 1 if lasted_s < STARTED_AFTER_S else 0
        if self._early_exits == self._tries:
            raise CannotStart(f"{line} (the {self._tries} starts in a row that failed are in {self._log})")
        say(f"{line} (see {self._log})")

    def _last_line(self) -> str:
        """Return the last line that the process wrote."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return last_line(log.read().decode(errors="replace"))

    def _start(self) -> subprocess.Popen[bytes]:
        self._started_at = monotonic()
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            # In its own session, so that Ctrl-C reaches only this process, which stops the others in order.
            return subprocess.Popen(
                self.program.command,
                cwd=ROOT,
                env={**os.environ, **self.program.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def last_line(text: str) -> str:
    """Return the last line that is not blank."""
    return next((line for line in reversed(text.split("\n")) if line.strip()), "")


def say(line: str) -> None:
    """Print a line, unless the terminal was closed; characters that it cannot show are replaced."""
    encoding = sys.stdout.encoding or "ascii"
    with suppress(OSError, ValueError):
        print(line.encode(encoding, "replace").decode(encoding), flush=True)


def stop_all(running: Sequence[Running]) -> None:
    """Stop every program, also if stopping another one fails; their tasks are finished or return to the queue."""
    deadline = monotonic() + STOP_WITHIN_S
    with ExitStack() as stopping:
        for program in running:
            stopping.callback(_stop, program, deadline)
        for program in running:
            program.ask_to_stop()


def _stop(program: Running, deadline: float) -> None:
    program.stop(within_s=deadline - monotonic())
