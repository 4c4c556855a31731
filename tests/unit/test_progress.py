"""A worker's progress in its log."""

import logging
import re

import pytest

from common.errors import QueueUnavailable
from common.queue.tasks import State
from workers.progress import Progress


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_finished_tasks_are_reported_with_their_rate(lines: pytest.LogCaptureFixture) -> None:
    progress = Progress(lambda: 40)
    for state, count in ((State.SUCCEEDED, 3), (State.FAILED, 2), (State.SUPERSEDED, 1)):
        for _ in range(count):
            progress.count(state)

    progress.report()

    [line] = lines.records
    assert re.fullmatch(r"stored 3, failed 2, 1 superseded, [\d.]+ a second; 40 waiting", line.getMessage())


def test_idle_worker_reports_nothing(lines: pytest.LogCaptureFixture) -> None:
    progress = Progress(lambda: 40)
    progress.count(State.SUCCEEDED)
    progress.report()

    progress.report()

    assert len(lines.records) == 1


def test_progress_is_reported_while_redis_is_silent(lines: pytest.LogCaptureFixture) -> None:
    def waiting() -> int:
        raise QueueUnavailable("silent")

    progress = Progress(waiting)
    progress.count(State.SUCCEEDED)

    progress.report()

    assert lines.records[0].getMessage().endswith("an unknown number waiting")


def test_working_worker_reports_by_itself(lines: pytest.LogCaptureFixture) -> None:
    progress = Progress(lambda: 0, every_s=0.01)
    progress.count(State.SUCCEEDED)

    progress.start()
    while not lines.records:
        progress._thread.join(0.01)
    progress.close()

    assert len(lines.records) == 1
