"""Tidying: what is kept of ended work is bounded by time, and by room."""

from typing import Any

import pytest
from redis import Redis

from common.queue.failures import Failures
from common.queue.jobs import SINGLE_QUEUE, AddJob
from common.queue.keys import FAILED
from common.queue.ledger import Ledger
from common.queue.tasks import Closing, State
from common.redis.clock import now_ms
from common.store.base import Tombstone
from common.uploads import Uploads
from workers.sweeper import PURGE_EVERY_S
from workers.tidying import TOMBSTONES_LONGER_MS, Tidying

KEEP_S = 600


@pytest.fixture
def tidying(fake_redis: Redis, ledger: Ledger, memory_store: Any, uploads: Uploads) -> Tidying:
    return Tidying(fake_redis, ledger, Failures(fake_redis), memory_store, uploads, failed_keep_s=KEEP_S)


def fail_with_upload(redis: Redis, ledger: Ledger, uploads: Uploads, *, at: int) -> str:
    claim = uploads.put(b"bytes")
    [task] = ledger.accept([AddJob(filepath="a", upload=claim)], queue=SINGLE_QUEUE)
    ledger.close([Closing(task_id=task.id, state=State.FAILED, code="x", error="y")])
    redis.zadd(FAILED, {task.id: at})
    return claim


def test_with_room_no_upload_goes(fake_redis: Redis, ledger: Ledger, uploads: Uploads, tidying: Tidying) -> None:
    claim = fail_with_upload(fake_redis, ledger, uploads, at=1)

    tidying.make_room()

    assert uploads.get(claim) == b"bytes"


def test_without_room_the_oldest_failures_lose_their_uploads_first(
    fake_redis: Redis, ledger: Ledger, uploads: Uploads, tidying: Tidying, room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.tidying.UPLOADS_AT_ONCE", 1)
    young, old = (fail_with_upload(fake_redis, ledger, uploads, at=at) for at in (20, 10))
    room.crowded = True

    first = [tidying.make_room(), uploads.there([young, old])]
    second = [tidying.make_room(), uploads.there([young, old])]

    assert first == [1, {young}]
    assert second == [1, set()]


def test_uploads_of_open_work_are_never_dropped_for_room(
    ledger: Ledger, uploads: Uploads, tidying: Tidying, room: Any
) -> None:
    claim = uploads.put(b"bytes")
    ledger.accept([AddJob(filepath="a", upload=claim)], queue=SINGLE_QUEUE)
    room.crowded = True

    tidying.make_room()

    assert uploads.get(claim) == b"bytes"


def test_a_deletion_outlives_the_failures_that_it_outranks(
    fake_redis: Redis, tidying: Tidying, memory_store: Any
) -> None:
    too_old = now_ms(fake_redis) - KEEP_S * 1000
    memory_store.put([Tombstone(filepath="kept", seq=1, added=too_old - 1)])
    memory_store.put([Tombstone(filepath="gone", seq=2, added=too_old - TOMBSTONES_LONGER_MS - 1)])

    tidying.purge()

    assert set(memory_store.kept) == {"kept"}


def test_a_day_of_many_deletions_is_forgotten_within_a_day(tidying: Tidying, memory_store: Any) -> None:
    a_pass = 500_000 * PURGE_EVERY_S / 86_400
    memory_store.put([Tombstone(filepath=f"{n}", seq=n, added=1) for n in range(1, int(a_pass))])

    tidying.purge()

    assert memory_store.kept == {}


def test_failures_leave_the_list_when_their_time_is_over(
    fake_redis: Redis, ledger: Ledger, uploads: Uploads, tidying: Tidying
) -> None:
    fail_with_upload(fake_redis, ledger, uploads, at=1)

    tidying.purge()

    assert fake_redis.zcard(FAILED) == 0
