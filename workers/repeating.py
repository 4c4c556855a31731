"""A thread that makes a call again and again, until it is closed."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

from common.errors import MatchError


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorLog:
    """Logs errors, so that their thread continues.

    A MatchError is `failed`, whose %s is its text, at `level`. Any other error is `unexpected`, with its traceback.
    """

    log: logging.Logger
    failed: str
    unexpected: str
    level: int = logging.WARNING

    @contextmanager
    def continuing(self) -> Iterator[None]:
        """Log any error instead of raising it."""
        try:
            yield
        except MatchError as error:
            self.log.log(self.level, self.failed, error)
        except Exception:
            self.log.exception(self.unexpected)


class Repeating(ABC):
    """A daemon thread that calls `_repeat` every `every_s` seconds, the first time after `first_after_s`.

    None for the first time is `every_s`. `close` waits for the running call, at most `close_within_s`; None for as long
    as it takes.
    """

    def __init__(
        self,
        name: str,
        errors: ErrorLog,
        *,
        every_s: float,
        first_after_s: float | None = None,
        close_within_s: float | None = None,
    ) -> None:
        self._errors = errors
        self._every_s = every_s
        self._first_after_s = first_after_s
        self._close_within_s = close_within_s
        self._stop = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self._close_within_s)

    @abstractmethod
    def _repeat(self) -> float | None:
        """Return the seconds until the next call; None for `every_s`."""

    def _run(self) -> None:
        next_in_s = self._first_after_s
        while not self._stop.wait(self._every_s if next_in_s is None else next_in_s):
            next_in_s = None
            with self._errors.continuing():
                next_in_s = self._repeat()
