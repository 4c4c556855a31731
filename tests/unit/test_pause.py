"""The pause of the queue: the view of the workers, and the state that the API returns."""

import logging
from typing import Any

import pytest
from redis import Redis

from common.errors import QueueUnavailable
from common.queue.items import AddItem
from common.queue.jobs import CONSUMED_QUEUES
from common.queue.ledger import Ledger
from common.queue.pause import Pause
from common.queue.stats import read_stats
from common.uploads import Uploads
from support.pipelines import open_pipeline
from support.tasks import enqueue, fail, succeed
from workers.pause import PauseWatch, QueuePaused
from workers.queue_order import QueueOrder

JOB = AddItem(filepath="a", url="http://example.org/a.jpg")


class SilentPause(Pause):
    """A pause in a Redis that answers only while `answers`."""

    answers = True

    def is_set(self) -> bool:
        if not self.answers:
            raise QueueUnavailable("silent")
        return super().is_set()


@pytest.fixture
def pause(fake_redis: Redis) -> SilentPause:
    return SilentPause(fake_redis)


def test_pause_is_kept_in_redis(fake_redis: Redis, pause: Pause) -> None:
    pause.set()
    while_paused = (Pause(fake_redis).is_set(), read_stats(fake_redis).is_paused)
    pause.clear()

    assert while_paused == (True, True)
    assert (Pause(fake_redis).is_set(), read_stats(fake_redis).is_paused) == (False, False)


def test_worker_begins_nothing_before_redis_answers(pause: SilentPause) -> None:
    watch = PauseWatch(pause)
    pause.answers = False

    watch.look()
    before = watch.is_paused
    pause.answers = True
    watch.look()

    assert (before, watch.is_paused) == (True, False)


def test_silent_redis_changes_no_pause(pause: SilentPause) -> None:
    watch = PauseWatch(pause)
    watch.look()

    pause.set()
    pause.answers = False
    watch.look()

    assert not watch.is_paused


def test_changes_of_the_pause_are_logged(pause: Pause, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch = PauseWatch(pause)

    for change in (pause.clear, pause.set, pause.set, pause.clear):
        change()
        watch.look()

    assert [line.getMessage() for line in caplog.records] == [
        "the queue is paused: no task begins",
        "the queue is resumed",
    ]


def test_paused_worker_consumes_no_queue(pause: Pause) -> None:
    watch = PauseWatch(pause)
    order = QueueOrder(lambda: False, lambda: watch.is_paused)
    order.update(CONSUMED_QUEUES)
    pause.set()
    watch.look()

    while_paused = order.consume(9)
    pause.clear()
    watch.look()

    assert while_paused == []
    assert len(order.consume(9)) == 9


def test_rate_counts_recently_ended_tasks(fake_redis: Redis, ledger: Ledger) -> None:
    ids = [task.id for task in enqueue(ledger, [JOB] * 4)]
    succeed(ledger, ids[0])
    succeed(ledger, ids[1])
    fail(ledger, ids[2], code="too_large", error="too large")

    stats = read_stats(fake_redis)

    assert 3 / 120 <= stats.rate_per_s <= 3 / 60
    assert stats.waiting == 1


def test_paused_task_stays_open(
    fake_redis: Redis, ledger: Ledger, uploads: Uploads, memory_store: Any, pause: Pause
) -> None:
    [task] = enqueue(ledger, [JOB])
    check = PauseWatch(pause).check

    with (
        open_pipeline(fake_redis, ledger, uploads, memory_store, check_pause=check) as pipeline,
        pytest.raises(QueuePaused),
    ):
        pipeline.run(task.id)

    existing = ledger.task(task.id)
    assert existing is not None
    assert (existing.state, existing.attempts) == ("pending", 0)
