"""The contract of all stores of uploads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from common.errors import Overloaded, QueueUnavailable
from common.queue.admission import Admission
from common.queue.keys import UPLOAD_ENDS
from common.redis.client import connect
from common.uploads import FolderUploads, RedisUploads, Uploads
from common.uploads.base import new_upload_id
from support.waiting import wait_until

Make = Callable[..., Uploads]


@pytest.fixture(params=["redis", "folder"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return a function that opens the same uploads; a second object stands for another process."""
    redis: Redis | None = request.getfixturevalue("real_redis") if request.param == "redis" else None

    def make(*, max_bytes: int = 1000, **more: Any) -> Uploads:
        if redis is None:
            return FolderUploads(tmp_path / "uploads", max_bytes=max_bytes, **more)
        return RedisUploads(redis, admission=Admission(redis, max_percent=80), max_bytes=max_bytes, **more)

    return make


@pytest.fixture
def uploads(make: Make) -> Uploads:
    return make()


def test_bytes_are_read_unchanged_by_every_process(uploads: Uploads, make: Make) -> None:
    upload_id = uploads.put(b"\x00\xff image")

    assert make().get(upload_id) == b"\x00\xff image"


def test_each_upload_has_its_own_id(uploads: Uploads) -> None:
    upload_ids = {uploads.put(b"same") for _ in range(5)}

    assert len(upload_ids) == 5


def test_uploads_expire_unless_they_are_kept(make: Make) -> None:
    uploads = make(ttl_s=0.3)
    unclaimed, kept = uploads.put(b"a"), uploads.put(b"b")
    uploads.keep(kept)

    wait_until(lambda: uploads.get(unclaimed) is None)

    uploads.purge()
    assert uploads.get(kept) == b"b"
    wait_until(lambda: make().stored_bytes() == 1)


def test_dropped_bytes_are_gone_for_every_process(uploads: Uploads, make: Make) -> None:
    upload_ids = [uploads.put(b"a"), uploads.put(b"b")]

    uploads.drop(upload_ids)

    assert [make().get(upload_id) for upload_id in upload_ids] == [None, None]
    assert make().stored_bytes() == 0


def test_a_delayed_drop_keeps_bytes_until_then(uploads: Uploads) -> None:
    upload_id = uploads.put(b"a")
    uploads.keep(upload_id)

    uploads.drop([upload_id], after_s=0.3)

    assert uploads.get(upload_id) == b"a"
    wait_until(lambda: uploads.get(upload_id) is None)


def test_keep_cancels_a_delayed_drop(uploads: Uploads) -> None:
    upload_id, other = uploads.put(b"a"), uploads.put(b"b")
    uploads.drop([upload_id, other], after_s=0.3)

    uploads.keep(upload_id)

    wait_until(lambda: uploads.get(other) is None)
    uploads.purge()
    assert uploads.get(upload_id) == b"a"


def test_existing_upload_ids_are_listed(uploads: Uploads) -> None:
    here, gone = uploads.put(b"a"), uploads.put(b"b")
    uploads.drop([gone])

    assert uploads.existing([here, gone, new_upload_id()]) == {here}
    assert uploads.existing([]) == set()


def test_bytes_of_all_processes_are_counted(make: Make) -> None:
    first, second = make(), make()
    first.put(b"a" * 100)
    upload_id = second.put(b"b" * 20)
    second.keep(upload_id)

    assert make().stored_bytes() == 120


def test_bytes_dropped_twice_are_subtracted_once(uploads: Uploads, make: Make) -> None:
    upload_id, _ = uploads.put(b"a" * 10), uploads.put(b"b" * 5)

    uploads.drop([upload_id])
    uploads.drop([upload_id], after_s=60)
    uploads.drop([upload_id])

    assert make().stored_bytes() == 5


def test_uploads_over_the_limit_are_rejected_and_not_stored(make: Make) -> None:
    uploads = make(max_bytes=100)
    uploads.put(b"a" * 60)

    with pytest.raises(Overloaded) as refused:
        uploads.put(b"b" * 41)

    assert refused.value.retry_after > 0
    assert make().stored_bytes() == 60


def test_dropped_bytes_free_space(make: Make) -> None:
    uploads = make(max_bytes=100)
    uploads.drop([uploads.put(b"a" * 100)])

    # A process counts a folder only from time to time; a new one counts it at once.
    assert make(max_bytes=100).put(b"b" * 100)


def test_uploads_are_nearly_full_at_95_percent(make: Make) -> None:
    uploads = make(max_bytes=100)
    before = uploads.is_nearly_full()

    uploads.put(b"a" * 95)

    assert [before, uploads.is_nearly_full()] == [False, True]


@pytest.mark.parametrize("upload_id", ["", "../secret", "/etc/passwd", "a" * 32 + "/../x", "A" * 32, "." * 32, "x\0y"])
def test_invalid_upload_ids_reach_no_file(uploads: Uploads, upload_id: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")

    uploads.keep(upload_id)
    uploads.drop([upload_id])

    assert uploads.get(upload_id) is None
    assert uploads.existing([upload_id]) == set()
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_concurrent_uploads_are_all_stored(make: Make) -> None:
    uploads = make(max_bytes=100_000)
    with ThreadPoolExecutor(8) as pool:
        upload_ids = list(pool.map(lambda n: uploads.put(f"{n}".encode()), range(100)))

    assert [uploads.get(upload_id) for upload_id in upload_ids] == [f"{n}".encode() for n in range(100)]


def test_unreachable_uploads_are_unavailable(tmp_path: Path) -> None:
    unreachable = connect("redis://127.0.0.1:1/0")
    (tmp_path / "file").touch()
    stores: list[Uploads] = [
        RedisUploads(unreachable, admission=Admission(unreachable, max_percent=80), max_bytes=10),
        FolderUploads(tmp_path / "file", max_bytes=10),
    ]

    for store in stores:
        with pytest.raises(QueueUnavailable):
            store.put(b"a")


def test_partial_files_are_hidden_and_purged_when_old(tmp_path: Path) -> None:
    uploads = FolderUploads(tmp_path, max_bytes=100, ttl_s=60)
    upload_id = new_upload_id()
    part = tmp_path / f"{upload_id}.part"
    part.write_bytes(b"half")
    fresh = uploads.existing([upload_id])
    uploads.purge()
    kept_while_young = part.exists()
    os.utime(part, (1, 1))

    uploads.purge()

    assert (fresh, kept_while_young, part.exists()) == (set(), True, False)


def test_an_unmounted_folder_is_an_outage_not_a_loss(tmp_path: Path) -> None:
    uploads = FolderUploads(tmp_path / "share" / "uploads", max_bytes=100)
    upload_id = uploads.put(b"a")
    (tmp_path / "share").rename(tmp_path / "not mounted")

    for call in (
        uploads.get,
        lambda upload_id: uploads.existing([upload_id]),
        lambda upload_id: uploads.drop([upload_id], after_s=60),
    ):
        with pytest.raises(QueueUnavailable):
            call(upload_id)

    (tmp_path / "not mounted").rename(tmp_path / "share")
    assert uploads.get(upload_id) == b"a"


def test_files_of_other_programs_are_not_touched(tmp_path: Path) -> None:
    uploads = FolderUploads(tmp_path, max_bytes=100)
    foreign = tmp_path / "readme.txt"
    foreign.write_text("of another program")
    os.utime(foreign, (1, 1))

    uploads.purge()

    assert foreign.exists()
    assert uploads.stored_bytes() == 0


def test_only_the_owner_may_read_upload_files(tmp_path: Path) -> None:
    uploads = FolderUploads(tmp_path / "new", max_bytes=100)

    upload_id = uploads.put(b"a")

    assert (tmp_path / "new" / upload_id).stat().st_mode & 0o777 == 0o600


def test_expired_uploads_are_subtracted_from_the_sum(real_redis: Redis) -> None:
    admission = Admission(real_redis, max_percent=80)
    uploads = RedisUploads(real_redis, admission=admission, max_bytes=100, ttl_s=0.1)
    uploads.put(b"a" * 100)

    wait_until(lambda: uploads.stored_bytes() == 0)

    assert uploads.put(b"b" * 100)
    assert real_redis.zcard(UPLOAD_ENDS) == 1
