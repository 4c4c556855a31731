"""Retention: data of ended tasks is limited by age and by size."""

from typing import Any

import pytest
from redis import Redis

from common.queue.failures import Failures
from common.queue.host_limits import Fault
from common.queue.items import AddItem
from common.queue.keys import DEFERRED, FAILED, OPEN
from common.queue.ledger import Ledger
from common.redis.clock import now_ms
from common.store.base import Tombstone
from common.uploads import Uploads
from support.tasks import accept, begin, enqueue, fail
from workers.retention import TOMBSTONE_MARGIN_MS, Retention
from workers.sweeper import PURGE_EVERY_S

KEEP_S = 600


@pytest.fixture
def retention(fake_redis: Redis, ledger: Ledger, memory_store: Any, uploads: Uploads) -> Retention:
    return Retention(fake_redis, ledger, Failures(fake_redis), memory_store, uploads, failed_keep_s=KEEP_S)


def fail_with_upload(redis: Redis, ledger: Ledger, uploads: Uploads, *, at: int) -> str:
    upload_id = uploads.put(b"bytes")
    [task] = enqueue(ledger, [AddItem(filepath="a", upload_id=upload_id)])
    fail(ledger, task.id, code="x", error="y")
    redis.zadd(FAILED, {task.id: at})
    return upload_id


def test_with_enough_space_no_upload_is_evicted(
    fake_redis: Redis, ledger: Ledger, uploads: Uploads, retention: Retention
) -> None:
    upload_id = fail_with_upload(fake_redis, ledger, uploads, at=1)

    retention.evict_uploads()

    assert uploads.get(upload_id) == b"bytes"


def test_uploads_of_the_oldest_failures_are_evicted_first(
    fake_redis: Redis,
    ledger: Ledger,
    uploads: Uploads,
    retention: Retention,
    fake_admission: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.retention.UPLOADS_PER_PASS", 1)
    young, old = (fail_with_upload(fake_redis, ledger, uploads, at=at) for at in (20, 10))
    fake_admission.nearly_full = True

    first = [retention.evict_uploads(), uploads.existing([young, old])]
    second = [retention.evict_uploads(), uploads.existing([young, old])]

    assert first == [1, {young}]
    assert second == [1, set()]


def test_uploads_of_open_tasks_are_never_evicted(
    ledger: Ledger, uploads: Uploads, retention: Retention, fake_admission: Any
) -> None:
    upload_id = uploads.put(b"bytes")
    enqueue(ledger, [AddItem(filepath="a", upload_id=upload_id)])
    fake_admission.nearly_full = True

    retention.evict_uploads()

    assert uploads.get(upload_id) == b"bytes"


def test_tombstones_outlive_the_failures_that_they_supersede(
    fake_redis: Redis, retention: Retention, memory_store: Any
) -> None:
    too_old = now_ms(fake_redis) - KEEP_S * 1000
    memory_store.put([Tombstone(filepath="kept", seq=1, added=too_old - 1)])
    memory_store.put([Tombstone(filepath="gone", seq=2, added=too_old - TOMBSTONE_MARGIN_MS - 1)])

    retention.purge()

    assert [filepath for _, filepath in memory_store.kept] == ["kept"]


def test_purging_keeps_up_with_many_deletions(retention: Retention, memory_store: Any) -> None:
    a_pass = 500_000 * PURGE_EVERY_S / 86_400
    memory_store.put([Tombstone(filepath=f"{n}", seq=n, added=1) for n in range(1, int(a_pass))])

    retention.purge()

    assert memory_store.kept == {}


def test_expired_failures_leave_the_list(
    fake_redis: Redis, ledger: Ledger, uploads: Uploads, retention: Retention
) -> None:
    fail_with_upload(fake_redis, ledger, uploads, at=1)

    retention.purge()

    assert fake_redis.zcard(FAILED) == 0


def test_ended_tasks_leave_the_deferred_ones(fake_redis: Redis, ledger: Ledger, retention: Retention) -> None:
    [ended, waiting] = accept(ledger, "ended", "waiting")
    for task_id in (ended, waiting):
        begin(ledger, task_id)
        ledger.defer(task_id, Fault(code="connect_failed", error="cannot be connected to"))
    fake_redis.zrem(OPEN, ended)

    retention.purge()

    assert fake_redis.zrange(DEFERRED, 0, -1) == [waiting.encode()]
