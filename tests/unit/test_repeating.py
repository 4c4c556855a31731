"""The thread that makes a call again and again."""

import logging
from threading import Event

import pytest

from common.errors import QueueUnavailable
from support.waiting import wait_until
from workers.repeating import ErrorLog, Repeating

ERRORS = ErrorLog(log=logging.getLogger(__name__), failed="failed: %s", unexpected="unexpected")
NEVER_S = 3600.0


class Calls(Repeating):
    """Counts its calls; each returns the next of `waits_s`, or raises it."""

    def __init__(self, *waits_s: float | Exception | None, every_s: float = 0.001) -> None:
        super().__init__("calls", ERRORS, every_s=every_s, first_after_s=0.0, close_within_s=0.0)
        self.count = 0
        self._waits_s = waits_s

    def _repeat(self) -> float | None:
        self.count += 1
        wait_s = self._waits_s[self.count - 1] if self.count <= len(self._waits_s) else None
        if isinstance(wait_s, Exception):
            raise wait_s
        return wait_s


def test_errors_are_logged_and_end_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls(QueueUnavailable("silent"), KeyError("a"))

    calls.start()
    wait_until(lambda: calls.count > 2, "a call follows the errors")
    calls.close()

    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("WARNING", "failed: silent"),
        ("ERROR", "unexpected"),
    ]


def test_call_chooses_the_time_of_the_next() -> None:
    calls = Calls(0.0, 0.0, every_s=NEVER_S)

    calls.start()
    wait_until(lambda: calls.count == 3, "the calls after those that chose a time")
    calls.close()
    calls._thread.join()

    assert calls.count == 3


def test_close_waits_for_the_running_call() -> None:
    begun, ended = Event(), Event()

    class Slow(Repeating):
        def _repeat(self) -> None:
            begun.set()
            self._stop.wait()
            ended.set()

    slow = Slow("slow", ERRORS, every_s=NEVER_S, first_after_s=0.0)
    slow.start()
    begun.wait()

    slow.close()

    assert ended.is_set()
