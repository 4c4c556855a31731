"""Commands that are ended at any time and run again to resume: settings, exit statuses and lines for people."""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

from common.config import Settings
from common.errors import ConfigError, MatchError

# Exit statuses. The shell's convention for Ctrl-C is 128 + SIGINT.
FAILED = 1
UNUSABLE_SETTINGS = 2
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class ResumableCommand:
    """A command; `name` begins its lines."""

    name: str

    def run(self, command: Callable[[Settings], int]) -> int:
        """Call the command with the settings of the environment, and return its exit status.

        SIGTERM raises KeyboardInterrupt like Ctrl-C, so that the command cleans up before it ends.
        """
        try:
            settings = Settings.from_env()
        except ConfigError as error:
            self.report(str(error))
            return UNUSABLE_SETTINGS
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return command(settings)
        except MatchError as error:
            self.report(f"{error}\nrun it again to resume")
            return FAILED
        except KeyboardInterrupt:
            self.report("ended; run it again to resume")
            return INTERRUPTED

    def report(self, line: str) -> None:
        """Print a line to the standard error."""
        print(f"match {self.name}: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the output of a command
